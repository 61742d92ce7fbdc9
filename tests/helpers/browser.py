"""A browser without a window, by the DevTools protocol over a pipe.

Chromium reads commands from descriptor 3 and writes answers and events to 4, each JSON and a zero
byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_SECONDS = 30.0


class Browser:
    """A context manager."""

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, self._write = os.pipe()
        self._read, own = os.pipe()
        options = " ".join([*_OPTIONS, f"--user-data-dir={self._folder.name}"])
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {CHROMIUM} {options} about:blank 3<&{theirs} 4>&{own}"],
            pass_fds=(theirs, own), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.close(own)
        self._next = 1
        self._answers: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command; ``RuntimeError`` where the browser refuses it."""
        number, self._next = self._next, self._next + 1
        answers = self._answers[number] = SimpleQueue()
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        try:
            answer = answers.get(timeout=_SECONDS)
        except Empty as error:
            raise TimeoutError(f"the browser does not answer {method}") from error
        finally:
            del self._answers[number]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def page(self, url: str, **look: Any) -> Page:
        """A page of its own, with nothing kept from others; ``look``: as in ``Page.look``."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.look(**look)
        page.call("Page.navigate", url=url)
        return page

    def _listen(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while piece := os.read(self._read, 1 << 16):
                *whole, rest = (rest + piece).split(b"\0")
                for one in whole:
                    self._hear(json.loads(one))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            waiting = self._answers.get(message["id"])
            if waiting is not None:
                waiting.put(message)
        elif page := self._pages.get(message.get("sessionId", "")):
            page.hear(message["method"], message["params"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # nothing of it is worth a polite end
        self._process.wait()
        os.close(self._write)
        self._thread.join(5)
        os.close(self._read)
        self._folder.cleanup()


class Page:
    """``requests``: the addresses that it has asked for; ``complaints``: errors and warnings of its
    console, and exceptions that nobody caught."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def look(
        self, *, width: int = 1440, height: int = 1000, dark: bool = False, calm: bool = True
    ) -> None:
        """How large its window is, and what its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, once it is settled."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in told:
            raise RuntimeError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    def text(self, selector: str) -> str:
        """What stands in an element; empty where there is none."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return " ".join(found.split())

    def until(self, wanted: str | Callable[[], Any], seconds: float = 10.0) -> Any:
        """Waits until an expression is true, or a function says so; what it was."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.evaluate(f"!!({wanted})") if isinstance(wanted, str) else wanted()
            if found:
                return found
            assert time.monotonic() < deadline, (wanted, self.complaints)
            time.sleep(0.03)

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as from a keyboard: ``Tab``, ``Enter``, ``" "``."""
        code = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}.get(key, 0)
        text = {"Enter": "\r", " ": " "}.get(key, "")
        how = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code,
               "modifiers": 8 if shift else 0}  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **how)
        self.call("Input.dispatchKeyEvent", type="keyUp", **how)

    def type(self, text: str) -> None:
        """Text into whatever has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen; of the ``whole`` page, however long."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        self.call("Page.close")
