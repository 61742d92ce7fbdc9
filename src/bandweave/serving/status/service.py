"""Service: the life of a server: it loads a model, serves it, and ends. Knows no HTTP.

Read and written by the threads of a command and by the server's tasks; each value changes at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bandweave.cluster.health import Outage
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import unavailable
from bandweave.serving.status.sampler import Sampler

#: Seconds without a sign of life, after which nobody should wait for the engine. Nodes that stall
#: are given up much earlier, and then say why; no step of a usable engine takes as long.
BOUND_SECONDS = 60.0
_RETRY_SECONDS = 5.0


class Service:
    """``served`` is None until the model is loaded, and while its nodes join anew. ``ending``:
    nothing more is begun."""

    def __init__(
        self,
        served: Served | None = None,
        sampler: Sampler | None = None,
        *,
        bound: float = BOUND_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: the sampler's; ``bound`` in its seconds."""
        self._served, self._sampler, self._bound, self._clock = served, sampler, bound, clock
        self._why = "the model is loading"
        self._outage: Callable[[], Outage | None] = lambda: None
        self.ending = False

    @property
    def served(self) -> Served | None:
        return self._served

    @property
    def sampler(self) -> Sampler | None:
        """Of the engine that is at work; None where nobody asks it."""
        return self._sampler

    def ready(
        self,
        served: Served,
        sampler: Sampler,
        outage: Callable[[], Outage | None] = lambda: None,
    ) -> None:
        """From now on the model is served, but while there is an ``outage``: whoever asks then
        waits, or is sent away where that has lasted too long."""
        self._outage = outage
        self._sampler, self._served = sampler, served

    def wait(self, why: str) -> None:
        """Nothing is served for the moment; ``why`` is a sentence without its full stop."""
        self._why, self._served = why, None

    def end(self) -> None:
        """Whoever asks from now on is sent away."""
        self.ending = True

    def take(self) -> Served:
        """The model; ``ApiError`` 503 where it is not served at the moment."""
        if self.ending:
            raise unavailable("the server is stopping", _RETRY_SECONDS)
        served, sampler = self._served, self._sampler
        if served is None:
            raise unavailable(f"{self._why}; try again in a while", _RETRY_SECONDS)
        if sampler is not None and sampler.failure:
            raise unavailable(f"the engine has failed: {sampler.failure}", _RETRY_SECONDS)
        outage = self._outage()
        if outage is not None and outage.over_patience:
            raise unavailable(f"no machine can answer: {outage.reason}", outage.retry)
        return served

    def trouble(self) -> str:
        """Why nobody should wait for an answer; empty where all is well. Never waits."""
        if self.ending:
            return "the server is stopping"
        served, sampler = self._served, self._sampler
        if served is None:
            return self._why
        if sampler is None:
            return ""
        if sampler.failure:
            return f"the engine has failed: {sampler.failure}"
        if (outage := self._outage()) is not None:
            return f"waiting for a machine: {outage.reason}"
        silent = self._clock() - min(sampler.at, sampler.moved)
        if silent > self._bound:
            return f"the engine has not ended a step for {silent:.0f} s"
        return ""
