"""Teller: tells an engine things in a thread of its own, one after the other.

An engine listens between two steps. Whoever has much to tell it waits until then, which an event
loop must not.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

_IDLE_SECONDS = 5.0  # after which the thread ends, until there is something to tell again

Work = Callable[[], None]
OnError = Callable[[Exception], None]


class Teller:
    """Threads and tasks may use it at any time."""

    def __init__(self) -> None:
        self._works: queue.SimpleQueue[tuple[Work, OnError]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._runs = False

    def tell(self, work: Work, on_error: OnError) -> None:
        """Does the work soon, behind all that came before; ``on_error`` hears what it raises, in
        the same thread."""
        with self._lock:
            self._works.put((work, on_error))
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="teller", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                work, on_error = self._works.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._works.empty():
                        self._runs = False
                        return
                continue
            try:
                work()
            except Exception as error:
                with contextlib.suppress(RuntimeError):  # the loop that asked is closed
                    on_error(error)
