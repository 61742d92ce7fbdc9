"""Cases: commands that are ended, what they need around them, and what they may leave.

``{name}`` in a case's words is what its preparation found; ``{work}`` is the working folder.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bandweave.checkpoints.resolve import demo_folder
from tests.helpers.hub_server import run_hub
from tests.interrupts.place import Place

_NODE = b"bandweave.nodes.process"
_PATIENCE = 60.0
_ASK = ("--prompt", "Tell me a story.", "--max-tokens", "150", "--threads", "1")
_STATE = "home/.local*"
_CACHE = ("home/.cache", "home/.cache/bandweave", "home/.cache/bandweave/panels",
          "home/.cache/bandweave/panels/*")  # fmt: skip

Prepare = Callable[[Place, ExitStack], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command. ``words``: its arguments; ``text``: on its standard input; ``lasts``: whether it
    goes on until it is ended; ``reads``: whether its input stays open; ``seconds``: in which it is
    ended; ``keeps``: patterns of files that may be left; ``makes``: of those that may be left only
    where it succeeded; ``after``: what a user types then, who wants nothing of it left;
    ``meanwhile``: runs in a thread beside the command, and is told how to see whether that has
    ended, and where it writes; values in capitals that ``prepare`` gives are variables of the
    environment."""

    name: str
    words: tuple[str, ...]
    text: bytes = b""
    lasts: bool = False
    reads: bool = False
    seconds: float = 1.5
    keeps: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    prepare: Prepare = lambda place, stack: {}
    meanwhile: Callable[[Place, Callable[[], bool], Path], None] | None = None


def _hub(place: Place, stack: ExitStack) -> Mapping[str, str]:
    """A hub with the demo model, which takes a while to give it."""
    hub = stack.enter_context(run_hub())
    files = {one.name: one.read_bytes() for one in demo_folder().iterdir() if one.is_file()}
    hub.add("org/demo", files)
    hub.bad.pause = 0.005
    return hub.variables


def _worker(place: Place, stack: ExitStack) -> Mapping[str, str]:
    """Two workers beside the command."""
    token = place.work / "token"
    token.write_text("x" * 40)
    addresses = []
    for _ in range(2):
        words = ("worker", "--listen", "127.0.0.1:0", "--token-file", str(token), "--threads", "1")
        process = stack.enter_context(
            subprocess.Popen(
                place.command(*words), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                env=place.environment(BANDWEAVE_CACHE="off"), start_new_session=True,
            )
        )  # fmt: skip
        stack.callback(process.kill)
        assert process.stderr is not None
        addresses.append(process.stderr.readline().decode().split()[-1])
        # What it says later must not stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
    return {"hosts": ",".join(addresses), "token": str(token)}


def _head(place: Place, stack: ExitStack, *more: str) -> Mapping[str, str]:
    """A cluster on this machine."""
    words = ("up", "--listen", "127.0.0.1:0", "--json", "--threads", "1", "--worker-listen",
             "127.0.0.1:0", *more)  # fmt: skip
    done = subprocess.run(
        place.command(*words), capture_output=True, env=place.environment(), timeout=_PATIENCE,
        check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    return {"head": said["head"], "token": said["token_file"]}


def _empty_head(place: Place, stack: ExitStack) -> Mapping[str, str]:
    return _head(place, stack, "--no-worker")


def _token(place: Place, stack: ExitStack) -> Mapping[str, str]:
    token = place.work / "token"
    token.write_text("x" * 40)
    return {"token": str(token)}


def _ask(place: Place, ended: Callable[[], bool], out: Path) -> None:
    """Streams from the server that the command becomes."""
    while not (found := re.search(r'"base_url": "http://([^/]+)/v1"', _text(out))):
        if ended():
            return
        time.sleep(0.02)
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}],
                       "stream": True, "ignore_eos": True, "max_tokens": 3000})  # fmt: skip

    def stream() -> None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(found[1], timeout=_PATIENCE)
            connection.request("POST", "/v1/chat/completions", body)
            connection.getresponse().read()

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)


def _ask_and_kill(place: Place, ended: Callable[[], bool], out: Path) -> None:
    """Streams whose nodes die now and then."""
    asking = threading.Thread(target=_ask, args=(place, ended, out), daemon=True)
    asking.start()
    while not ended():
        time.sleep(0.6)
        nodes = [pid for pid in place.processes() if _NODE in _command_line(pid)]
        if "base_url" in _text(out) and nodes:
            with suppress(ProcessLookupError):
                os.kill(nodes[-1], signal.SIGKILL)
    asking.join(_PATIENCE)


def _text(out: Path) -> str:
    """Nothing once the place is gone."""
    with suppress(OSError):
        return out.read_text()
    return ""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


_SERVE = ("serve", "demo", "--listen", "127.0.0.1:0", "--json", "--threads", "1")
_UP = ("up", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--threads", "1")

CASES = (
    Case(name="version", words=("--version",), seconds=0.3),
    Case(name="run", words=("run", "demo", *_ASK), keeps=_CACHE),
    Case(name="run-nodes", words=("run", "demo", *_ASK, "--nodes", "2", "--verbose"), keeps=_CACHE),
    Case(name="run-input", words=("run", "demo", "--threads", "1"), text=b"What is 17 + 25?",
         keeps=_CACHE),
    Case(name="run-json", words=("run", "demo", *_ASK, "--json"), keeps=_CACHE),
    Case(name="run-hosts", words=("run", "demo", *_ASK, "--hosts", "{hosts}", "--token-file",
                                  "{token}"), prepare=_worker),
    Case(name="run-hub", words=("run", "org/demo", *_ASK), prepare=_hub,
         keeps=(*_CACHE, "home/.cache/bandweave/hub*")),
    Case(name="pull", words=("pull", "org/demo"), prepare=_hub,
         keeps=("home/.cache", "home/.cache/bandweave", "home/.cache/bandweave/hub*")),
    Case(name="chat", words=("chat", "demo", "--threads", "1", "--max-tokens", "80"),
         text=b"What is 17 + 25?\nTell me a story.\n" * 3, seconds=2.5,
         lasts=True, reads=True, keeps=(*_CACHE, _STATE)),
    Case(name="serve", words=_SERVE, lasts=True, seconds=3.0, keeps=_CACHE, meanwhile=_ask),
    Case(name="serve-recovery", words=(*_SERVE, "--nodes", "3"), lasts=True, seconds=4.0,
         keeps=_CACHE, meanwhile=_ask_and_kill),
    Case(name="serve-drain", words=(*_SERVE, "--nodes", "2", "--drain", "1"), lasts=True,
         seconds=3.0, keeps=_CACHE, meanwhile=_ask),
    Case(name="worker", words=("worker", "--listen", "127.0.0.1:0", "--token-file", "{token}"),
         lasts=True, seconds=1.0, prepare=_token),
    Case(name="head", words=("up", "--foreground", "--listen", "127.0.0.1:0"), lasts=True,
         seconds=1.0, keeps=(_STATE,)),
    Case(name="up", words=_UP, keeps=(_STATE,), after=("down",), seconds=2.0),
    Case(name="join", words=("join", "{head}", "--token-file", "{token}", "--worker-listen",
                             "127.0.0.1:0", "--threads", "1"),
         prepare=_empty_head, keeps=(_STATE,), after=("leave",), seconds=2.0),
    Case(name="leave", words=("leave",), prepare=_head, keeps=(_STATE,), after=("leave",)),
    Case(name="down", words=("down",), prepare=_head, keeps=(_STATE,), after=("down",)),
    Case(name="status", words=("status", "{head}"), prepare=_empty_head, keeps=(_STATE,),
         seconds=0.8),
    Case(name="cluster", words=(*_SERVE, "--cluster"), prepare=_head, lasts=True, seconds=4.0,
         keeps=(*_CACHE, _STATE), meanwhile=_ask),
    Case(name="plan", words=("plan", "deepseek-r1", "--on", "40x m3-ultra-512", "--link",
                             "tb5-rdma", "--html", "{work}/page.html"),
         makes=("work/page.html",), keeps=("home/.c*",), seconds=1.2),
    Case(name="simulate", words=("plan", "qwen3-32b", "--on", "2x m4-max-128", "--link", "tb5-rdma",
                                 "--simulate", "--seconds", "3000"), seconds=1.0),
    Case(name="probe", words=("probe", "--quick", "--threads", "1"), keeps=(_STATE,), seconds=3.0),
    Case(name="synth", words=("synth", "tinyllama-1.1b", "{work}/made", "--layers", "3"),
         makes=("work/made", "work/made/*"), seconds=1.5),
    Case(name="dump", words=("dump", "demo", "{work}/demo.bwd"), makes=("work/demo.bwd",)),
    Case(name="bench", words=("bench", "demo", "--threads", "1", "--rounds", "3"), keeps=_CACHE),
    Case(name="demo", words=("demo", "--threads", "1"), keeps=_CACHE, seconds=2.0),
    Case(name="doctor", words=("doctor", "--no-bandwidth"), seconds=0.8),
    Case(name="cache", words=("cache",), seconds=0.5),
)  # fmt: skip
