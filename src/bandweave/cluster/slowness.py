"""Slowness: which node takes longer for its weights than it did, from the nodes' own bills.

A node is compared with its own past, never with others: whoever is slow by nature has a smaller
share already. Pure but for what it remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bandweave.engine.engine import NodeStatistics

_LEAST_STEPS = 8  # between two looks, for a rate that means anything
_KNOWN = 3  # looks that a node's own speed is known by, and that a change must last
_SLOW = 1.5  # times longer than it took is slow; less is noise


@dataclass(kw_only=True)
class _Pace:
    """Seconds a byte of weights: the best that was usual, and the last ones."""

    usual: float = 0.0
    last: list[float] = field(default_factory=list)


class Slowness:
    """By the nodes' names, which change with their processes."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}
        self._before: dict[str, Mapping[str, float]] = {}

    def look(self, statistics: Sequence[NodeStatistics]) -> None:
        """What all nodes have counted by now."""
        for one in statistics:
            before = self._before.get(one.name)
            self._before[one.name] = one.decode
            if before is None:
                continue
            steps = one.decode["steps"] - before["steps"]
            bytes_read = one.decode["weight_bytes"] - before["weight_bytes"]
            seconds = one.decode["weights"] - before["weights"]
            if steps >= _LEAST_STEPS and bytes_read > 0 and seconds > 0:
                self._note(self._paces.setdefault(one.name, _Pace()), seconds / bytes_read)

    def _note(self, pace: _Pace, rate: float) -> None:
        pace.last = [*pace.last, rate][-_KNOWN:]
        if len(pace.last) == _KNOWN:
            now = median(pace.last)
            pace.usual = now if not pace.usual else min(pace.usual, now)

    def forget_counts(self) -> None:
        """The nodes count anew."""
        self._before.clear()

    def slowed(self, names: Sequence[str]) -> list[float]:
        """How many times longer a byte of weights takes each of these than it did, where the others
        do not take longer as well, as they do for steps of many rows; 1 where it is as fast as
        ever, or where that is not known."""
        times = [self._times(name) for name in names]
        least = min(times, default=1.0)
        return [one / least if one / least >= _SLOW else 1.0 for one in times]

    def _times(self, name: str) -> float:
        pace = self._paces.get(name)
        if pace is None or len(pace.last) < _KNOWN or not pace.usual:
            return 1.0
        return max(1.0, min(pace.last) / pace.usual)  # even the best of the last looks
