"""Heartbeat: tells the controller that a long step gets on. Knows a channel and two counters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from bandweave.mesh.channel import Channel

PERIOD = 0.5  # seconds


class Heartbeat:
    """While entered, a thread sends ``alive`` whenever ``progress()`` has changed, with the number
    of ``tokens()`` computed so far."""

    def __init__(
        self, channel: Channel, progress: Callable[[], int], tokens: Callable[[], int]
    ) -> None:
        self._channel, self._progress, self._tokens = channel, progress, tokens
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        last = -1
        while not self._over.wait(PERIOD):
            if (now := self._progress()) != last:
                last = now
                with contextlib.suppress(OSError):  # the main thread meets the same error
                    self._channel.send({"type": "alive", "tokens": self._tokens()})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
