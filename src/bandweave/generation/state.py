"""State: what an engine does at the moment, and what it has counted. Plain data."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as ListOf
from dataclasses import dataclass, field

from bandweave.generation.scheduler import SequenceRows

#: Upper ends of the ranges in which the times of steps are counted, in seconds; one more is open.
STEP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(kw_only=True)
class Counts:
    """Since the start: ``steps`` and their ``seconds``, by their duration in ``durations``;
    ``read`` tokens of prompts that were computed, ``written`` ones of answers; ``ended``
    requests."""

    steps: int = 0
    seconds: float = 0.0
    durations: list[int] = field(default_factory=lambda: [0] * (len(STEP_BOUNDS) + 1))
    read: int = 0
    written: int = 0
    ended: int = 0

    def add(self, batch: ListOf[SequenceRows], seconds: float) -> None:
        """A step of these rows took so long; called before its answers' ends are told."""
        self.steps += 1
        self.seconds += seconds
        self.durations[bisect_left(STEP_BOUNDS, seconds)] += 1
        for rows in batch:
            if rows.decodes:
                self.written += rows.right
            else:
                self.read += rows.right
                self.written += rows.wants


@dataclass(frozen=True, kw_only=True)
class State:
    """``running`` sequences have pages, ``waiting`` ones have none. Of the ``pages``,
    ``free_pages`` are nobody's; ``kept_pages`` of those hold what may be wanted again.
    ``preempted``: sequences that have given way so far. ``in_flight``: steps that were under way
    when the last one ended, itself among them; 0 where nothing is computed."""

    running: int
    waiting: int
    pages: int
    free_pages: int
    kept_pages: int
    preempted: int
    in_flight: int
    counts: Counts
