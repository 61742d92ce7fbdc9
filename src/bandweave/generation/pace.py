"""Pace: how many rows of prompts a step may have, so that those who listen need not wait long.

A step's time is what its answers take and what each row of a prompt adds. Both are learnt from the
steps that were. No answer shows how prompts are cut. Pure: knows no clock but that of its caller.
"""

from __future__ import annotations

#: Seconds that a step may take while answers go on.
STEP_SECONDS = 0.25
_FIRST_ROWS = 16  # while nothing is known
_LEAST_ROWS = 8  # prompts get on even where the answers alone take the time
_NEW = 0.3  # weight of the latest step


class Pace:
    """Learns from ``observe``."""

    def __init__(self, step_seconds: float = STEP_SECONDS) -> None:
        self._bound = step_seconds
        self._answers: float | None = None  # seconds of a step without prompts
        self._row: float | None = None  # seconds that a prompt's row adds

    def observe(self, *, decoding: int, reading: int, seconds: float) -> None:
        """A step had so many rows of answers and of prompts."""
        if not reading:
            self._answers = _mixed(self._answers, seconds)
        elif not decoding or self._answers is None:
            self._row = _mixed(self._row, seconds / reading)
        else:
            self._row = _mixed(self._row, max(0.0, seconds - self._answers) / reading)

    def rows(self, *, decoding: int, most: int) -> int:
        """Rows that the prompts of the next step may have, of ``most`` that there are."""
        if not decoding:
            return most
        if self._row is None:
            return min(most, _FIRST_ROWS)
        left = self._bound - (self._answers or 0.0)
        if self._row * most <= max(0.0, left):
            return most
        return min(most, max(_LEAST_ROWS, int(left / self._row)))


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new
