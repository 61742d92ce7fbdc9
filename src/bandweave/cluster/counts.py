"""Counts: what an engine says it has done, over the lives of its nodes. Pure but for its sums."""

from __future__ import annotations

from dataclasses import replace

from bandweave.messages import EngineState

_SUMS = ("preempted", "steps", "seconds", "read", "written", "ended")


class Counts:
    """Adds up what nodes counted that are no more."""

    def __init__(self) -> None:
        self._before: EngineState | None = None
        self._latest: EngineState | None = None

    def note(self, state: EngineState) -> EngineState:
        """What the nodes that are there say, with what was counted before them."""
        self._latest = state
        return _sum(self._before, state)

    def carry(self) -> None:
        """The nodes count anew from now on."""
        if self._latest is not None:
            self._before, self._latest = _sum(self._before, self._latest), None

    def waiting(self, requests: int) -> EngineState | None:
        """While nobody computes: so many requests wait. None before anybody has counted."""
        known = self._latest or self._before
        if known is None:
            return None
        whole = known if self._latest is None else _sum(self._before, known)
        return replace(
            whole, running=0, waiting=requests, free_pages=whole.pages, kept_pages=0, in_flight=0
        )


def _sum(before: EngineState | None, now: EngineState) -> EngineState:
    if before is None:
        return now
    sums = {name: getattr(before, name) + getattr(now, name) for name in _SUMS}
    durations = tuple(a + b for a, b in zip(before.durations, now.durations, strict=True))
    return replace(now, durations=durations, **sums)
