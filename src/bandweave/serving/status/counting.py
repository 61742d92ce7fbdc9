"""Counting: distributions and rates of what goes on. Plain data; knows no clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

_WINDOW_SECONDS = 5.0


class Distribution:
    """Counts values by ranges: ``bounds`` are their upper ends, and one more range is open."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Rate:
    """How fast a count grows, over the last seconds."""

    def __init__(self, seconds: float = _WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, now: float, count: float) -> None:
        """The count as of now, in seconds of any clock."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._seconds:
            self._seen.popleft()

    @property
    def known(self) -> bool:
        """Whether it was seen twice."""
        return len(self._seen) > 1

    @property
    def per_s(self) -> float:
        """0 while it is not known."""
        if not self.known:
            return 0.0
        (old, before), (now, count) = self._seen[0], self._seen[-1]
        return (count - before) / (now - old) if now > old else 0.0
