"""Signs of life: a node tells its controller that it lives, how far it has loaded, and that a long
step gets on. Knows a channel and counters.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from bandweave.mesh.channel import Channel
from bandweave.messages import Alive, Progress, encode

PERIOD = 0.5  # seconds


class LoadingPulse:
    """While entered, a thread sends ``Progress`` twice a second: a node that finds its model, waits
    for others or reads from a slow disk still lives. ``update`` says how far it is; ``moved``,
    once it is set, a number that grows while files come from other machines."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._progress = channel, Progress(done=0, total=0)
        self.moved: Callable[[], int] = lambda: 0
        self._over, self._beat = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)

    def update(self, done: int, total: int) -> None:
        """Bytes of the checkpoint that are done, and in all; the first are told at once."""
        first = not self._progress.total
        self._progress = Progress(done=done, total=total)
        if first:
            self._beat.set()

    def _run(self) -> None:
        while not self._over:
            self._beat.wait(PERIOD)
            self._beat.clear()
            if self._over:
                return
            with contextlib.suppress(OSError):  # the main thread meets the same error
                now = replace(self._progress, moved=self.moved())
                self._channel.offer(encode(now))

    def end(self) -> None:
        """Sends no more: to be called before it is said that all is loaded. A second call does
        nothing."""
        self._over = True
        self._beat.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Heartbeat:
    """While entered, a thread sends ``alive`` twice a second, with ``progress()``, which grows
    while the node works, and the prompts that are being read, as ``(request, tokens)``; ``on_beat``
    is called each time before. A node that is idle sends half as many."""

    def __init__(
        self,
        channel: Channel,
        progress: Callable[[], int],
        reading: Callable[[], Sequence[tuple[int, int]]] = lambda: (),
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel, self._progress, self._reading = channel, progress, reading
        self._on_beat = on_beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        last, left_out = -1, False
        while not self._over.wait(PERIOD):
            with contextlib.suppress(OSError):
                self._on_beat()
            now = self._progress()
            if now == last and not left_out:
                left_out = True
                continue
            last, left_out = now, False
            # One that a paused controller has no room for is worth no waiting, and the main thread
            # meets the same errors.
            reading = self._reading()
            ids, tokens = zip(*reading, strict=True) if reading else ((), ())
            with contextlib.suppress(OSError):
                self._channel.offer(encode(Alive(ids=ids, tokens=tokens, progress=now)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
