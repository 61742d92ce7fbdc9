"""Scenario and Outcome: what a simulation is asked, and what it says. Plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bandweave.planning.simulation.takeover import Recovered, Takeover


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What happens. ``streams``: at once in each replica; ``arrivals_per_s``: of requests, 0 keeps
    every place taken, until ``requests`` have been answered (0: for ever). A node runs
    ``mean_uptime_s`` on average (exponential; None: for ever) and is back after ``repair_s``.
    ``warm_up_s`` is not counted."""

    streams: int
    prompt: int
    answer: int
    context: int  # that a decoding row is charged for
    seconds: float = 60.0
    warm_up_s: float = 0.0
    arrivals_per_s: float = 0.0
    requests: int = 0
    mean_uptime_s: float | None = None
    repair_s: float = 60.0
    takeover: Takeover | None = None
    seed: int = 0
    batch: int | None = None  # rows of a batch; None: the streams shared out to the stages


@dataclass(frozen=True, kw_only=True)
class StageUse:
    replica: int
    stage: int
    nodes: tuple[str, ...]
    utilisation: float  # of the time, computing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Counted after the warm-up. Latencies in seconds, ascending. ``stages`` are those of the whole
    replica; ``silences_s``: of each stream that a failure interrupted, from the failure to the next
    token; ``returns``: how often a machine that was back was taken in."""

    seconds: float
    tokens: int
    requests: int
    waiting: int  # requests that had no place at the end
    gaps_s: Sequence[float]  # between a stream's tokens
    first_tokens_s: Sequence[float]  # from arrival
    stages: tuple[StageUse, ...]
    failures: int
    recomputed_tokens: int
    available: float  # of the time, a replica that answers, on average
    events: int
    cut_short: bool  # too many events: it ended before its time
    recoveries: tuple[Recovered, ...] = ()
    silences_s: Sequence[float] = ()
    returns: int = 0
    moved: int = 0  # streams that went on at another replica

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def percentile(values: Sequence[float], part: float) -> float:
    """Of ascending values, the nearest rank; nan of none."""
    if not values:
        return math.nan
    return values[min(len(values) - 1, max(0, math.ceil(part * len(values)) - 1))]
