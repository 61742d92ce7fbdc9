"""Allowance: how often something may be done, with a few times in advance."""

from __future__ import annotations

import time


class Allowance:
    """``per_second`` times a second on the average, ``burst`` times at once after a rest."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._counted_at = burst, time.monotonic()

    def take(self) -> bool:
        """Whether it may be done now; counts it then."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def wait_seconds(self) -> float:
        """How long until it may be done again."""
        return max(0.0, (1 - self._left) / self._per_second)
