"""StrangerLog: what is said of connections that came to nothing, one line a second at most.

Anybody who reaches a port can cause such lines, and must not fill a disk with them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

_PERIOD = 1.0  # seconds


class StrangerLog:
    """Shows a line at once where none was shown for a second; counts the others and says how many
    they were. Belongs to one thread."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._next = float("-inf")
        self._unseen, self._last = 0, ""

    def add(self, sentence: str) -> None:
        """One connection that was refused or dropped, named by the sentence."""
        if time.monotonic() >= self._next and not self._unseen:
            self._show(sentence)
        else:
            self._unseen += 1
            self._last = sentence

    def due(self) -> float | None:
        """When ``flush`` has something to say (of ``time.monotonic``), None for never."""
        return self._next if self._unseen else None

    def flush(self) -> None:
        """Says what is due."""
        if self._unseen and time.monotonic() >= self._next:
            more = (
                f"; {self._unseen - 1} others like it within a second" if self._unseen > 1 else ""
            )
            self._unseen = 0
            self._show(self._last + more)

    def _show(self, sentence: str) -> None:
        self._next = time.monotonic() + _PERIOD
        with contextlib.suppress(Exception):  # a log is never worth a connection
            self._log(sentence)
