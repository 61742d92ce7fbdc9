"""Log: lines on standard error that cost their writer nothing, whatever becomes of them.

A disk may be full, a reader gone or asleep, a terminal stopped: a worker serves on. Lines that
cannot be written are counted, and the count is the next line that can.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from bandweave.mesh.printable import printable

_STANDARD_ERROR = 2
_MOST_LINES = 256  # that wait to be written
_LONGEST_LINE = 4000


class Log:
    """Called with a sentence, it never raises and never waits. ``prefix`` begins every line."""

    def __init__(self, prefix: str, descriptor: int = _STANDARD_ERROR) -> None:
        self._prefix, self._descriptor = prefix, descriptor
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __call__(self, sentence: str) -> None:
        data = _line(f"{self._prefix}: {sentence}")
        with self._changed:
            if len(self._lines) >= _MOST_LINES or not self._has_thread():
                self._lost += 1
                return
            self._lines.append(data)
            self._changed.notify_all()

    def flush(self, seconds: float = 0.5) -> None:
        """Waits until everything is written, but not longer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._busy, seconds)

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, name="log", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # the next line may have more luck
                return False
            self._thread = thread
        return True

    # --- in the thread that writes ---

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines))
                self._busy = True
                line, lost = self._lines.popleft(), self._lost
                self._lost = 0
            if lost:
                line = f"{self._prefix}: {lost} lines could not be written\n".encode() + line
            if not self._write(line):
                with self._changed:
                    self._lost += lost + 1

    def _write(self, data: bytes) -> bool:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody made the terminal so
                time.sleep(0.05)
            except (OSError, ValueError):
                return False
        return True


def _line(text: str) -> bytes:
    # Names of files may hold bytes that are no text.
    readable = text.encode("utf-8", "backslashreplace").decode()
    return printable(readable, _LONGEST_LINE).encode() + b"\n"
