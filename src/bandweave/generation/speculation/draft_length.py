"""Draft length: how many tokens to draft, from how often drafts were right and what rows have cost.

A draft of k tokens adds k rows to a step. Rows are cheap while the weights' way through the memory
takes longer than their arithmetic, and not beyond; where that is differs by format, processor and
batch, so it is measured. Time decides what is tried and never what is answered. Knows no tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

_SAMPLES = 5  # of which the median counts: a step that was interrupted says nothing
_FORGET_STEPS = 256  # estimates that old are made again
_SLOPE = 0.15  # of a step's time for a row more, as long as nothing was measured
_LEAST_SLOPE = 0.01
_PRIOR, _PRIOR_WEIGHT = 0.6, 2.0  # how often a draft is right, before anything is known
_FADE_SEEN, _FADE_UNUSED = 0.95, 0.99  # what is left of the evidence after a step


@dataclass(frozen=True, kw_only=True)
class Odds:
    """One answer's draft: at most ``count`` tokens, each right with ``acceptance`` if those before
    it were."""

    count: int
    acceptance: float


def plan_lengths(
    odds: Sequence[Odds],
    *,
    most_rows: int,
    step_seconds: Callable[[int], float],
    draft_seconds: float = 0.0,
) -> list[int]:
    """How many tokens to draft for each of the answers that a step decodes, so that the step gives
    most tokens a second.

    ``most_rows`` of a step, ``len(odds)`` of them taken already; ``step_seconds``: of a step by its
    rows; ``draft_seconds``: of one more token of the longest draft. All zeros where no draft pays.
    """
    lengths = [0] * len(odds)
    chances = [one.acceptance for one in odds]  # that the next token of each is right
    tokens, rows = float(len(odds)), len(odds)
    best, best_rate = list(lengths), tokens / step_seconds(rows)
    while rows < most_rows:
        open_ones = [i for i, one in enumerate(odds) if lengths[i] < one.count]
        if not open_ones:
            break
        index = max(open_ones, key=lambda i: (chances[i], -i))
        tokens += chances[index]
        chances[index] *= odds[index].acceptance
        lengths[index] += 1
        rows += 1
        rate = tokens / (step_seconds(rows) + draft_seconds * max(lengths))
        # All the way: rows are cheaper by the block, so that a worse length may precede a better.
        if rate > best_rate:
            best, best_rate = list(lengths), rate
    return best


class Costs:
    """Seconds of a step by its rows, of the last steps."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._seen: dict[int, int] = {}
        self._steps = 0

    def observe(self, rows: int, seconds: float) -> None:
        self._steps += 1
        self._samples.setdefault(rows, deque(maxlen=_SAMPLES)).append(seconds)
        self._seen[rows] = self._steps
        for old in [n for n, at in self._seen.items() if self._steps - at > _FORGET_STEPS]:
            del self._samples[old], self._seen[old]

    def known(self, rows: int) -> bool:
        """Whether a step of so many rows was measured of late."""
        return rows in self._samples

    def seconds(self, rows: int) -> float:
        """Measured; else between its neighbours; else from the next smaller one, each row as dear
        as those measured, or so cheap that drafts are tried. Something must have been measured."""
        assert self._samples, "nothing was measured yet"
        below = max((n for n in self._samples if n <= rows), default=None)
        above = min((n for n in self._samples if n >= rows), default=None)
        if below is None:
            assert above is not None
            return median(self._samples[above])
        low = median(self._samples[below])
        if above is None:
            return low + self._row_seconds(below) * (rows - below)
        if above == below:
            return low
        high = median(self._samples[above])
        return low + (high - low) * (rows - below) / (above - below)

    def _row_seconds(self, most: int) -> float:
        """Of one row more than the ``most`` that were measured."""
        least = min(self._samples)
        low, high = median(self._samples[least]), median(self._samples[most])
        if least == most:
            return _SLOPE * high
        return max((high - low) / (most - least), _LEAST_SLOPE * low)


@dataclass
class Acceptance:
    """How often drafted tokens were right, with less weight on what is long ago."""

    right: float = 0.0
    tried: float = 0.0

    @property
    def rate(self) -> float:
        return (self.right + _PRIOR * _PRIOR_WEIGHT) / (self.tried + _PRIOR_WEIGHT)

    def observe(self, drafted: int, accepted: int) -> None:
        """A draft whose first ``accepted`` tokens were right; behind the first wrong one nothing is
        known."""
        tried = min(drafted, accepted + 1)
        self.right = self.right * _FADE_SEEN**tried + accepted
        self.tried = self.tried * _FADE_SEEN**tried + tried

    def rest(self) -> None:
        """A step in which a draft was possible and not worth it: in the end it is tried again."""
        self.right *= _FADE_UNUSED
        self.tried *= _FADE_UNUSED


@dataclass
class Observations:
    """What is known of an engine's speed and of its answers' drafts, by kind of draft."""

    costs: Costs = field(default_factory=Costs)
    acceptances: dict[tuple[int, int], Acceptance] = field(default_factory=dict)
    _draft_samples: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def acceptance(self, id: int, kind: int) -> Acceptance:
        """Of the drafts of one kind for one answer."""
        return self.acceptances.setdefault((id, kind), Acceptance())

    @property
    def draft_seconds(self) -> float:
        """Of one token of a draft."""
        return median(self._draft_samples) if self._draft_samples else 0.0

    def observe_draft(self, longest: int, seconds: float) -> None:
        self._draft_samples.append(seconds / longest)

    def end(self, id: int) -> None:
        """That sequence is done."""
        for key in [key for key in self.acceptances if key[0] == id]:
            del self.acceptances[key]
