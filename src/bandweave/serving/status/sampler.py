"""Sampler: asks an engine now and then what it does, so that nobody else has to wait for it.

An engine answers at the end of its step. What comes back is therefore also a sign of life.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, Self

from bandweave.executors.executor import StepError
from bandweave.messages import EngineState

SECONDS = 0.5  # between an answer and the next question


class HasState(Protocol):
    """An engine, as far as it is asked here."""

    def state(self) -> EngineState: ...


class Sampler:
    """Asks in a thread of its own, from ``start`` to ``stop``. A context manager. Threads and tasks
    may read at any time; nothing of it waits."""

    def __init__(
        self,
        engine: HasState,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: seconds that only grow."""
        self._engine, self._seconds, self._clock = engine, seconds, clock
        self._latest: EngineState | None = None
        self._at = self._moved = clock()
        self._failure = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def latest(self) -> EngineState | None:
        """What the engine last said; None where it has not answered yet."""
        return self._latest

    @property
    def at(self) -> float:
        """When it said so, by the clock; before the first answer, when the sampler was made."""
        return self._at

    @property
    def moved(self) -> float:
        """When it was last seen to get on, by the clock: a step ended, or nothing waited."""
        return self._moved

    @property
    def failure(self) -> str:
        """Why the engine has failed for good; empty where it has not."""
        return self._failure

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks no more. An answer that is still owed is not waited for."""
        self._over.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            try:
                state = self._engine.state()
            except StepError as error:
                if not self._over.is_set():
                    self._failure = str(error) or "the engine has failed"
                return
            before, now = self._latest, self._clock()
            idle = not state.running and not state.waiting
            if idle or before is None or state.steps != before.steps:
                self._moved = now
            self._latest, self._at = state, now
            if self._over.wait(self._seconds):
                return
