"""Medians and their bootstrap intervals. Pure functions over numbers; knows no contestants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median over ``count`` rounds, and the percentile-bootstrap interval of it at 95%."""

    median: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high, "rounds": self.count}


def estimate(values: Sequence[float]) -> Estimate:
    """The median of a figure and its interval. ``ValueError`` without any value.

    Efron, "Bootstrap methods: another look at the jackknife", 1979; percentile intervals. The
    same values give the same interval: the resampling is seeded.
    """
    if not len(values):
        raise ValueError("0 values have no median; measure at least one round")
    array = np.asarray(values, np.float64)
    generator = np.random.default_rng(0)
    picks = generator.integers(len(array), size=(RESAMPLES, len(array)))
    medians: npt.NDArray[np.float64] = np.median(array[picks], axis=1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Estimate(
        median=float(np.median(array)), low=float(low), high=float(high), count=len(array)
    )


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """``values / baseline``, round by round: what both have in common cancels."""
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} rounds against {len(baseline)}; ratios need pairs")
    return [value / base for value, base in zip(values, baseline, strict=True)]
