"""Patience: how often, and after how long, something that failed is tried again."""

from __future__ import annotations

import random
import time

from bandweave.hub.refusals import HubError

TRIES = 10  # without any progress: for the better part of a minute where nobody answers at all
LONGEST_WAIT = 310.0  # seconds that a hub may ask for: its windows have five minutes
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 8.0


class Patience:
    """For one range or question; ``renew`` it whenever something has come."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """All tries again."""
        self._left, self._pause = TRIES, _FIRST_PAUSE

    def wait(self, error: HubError, seconds: float | None = None, *, cost: int = 1) -> None:
        """Sleeps before the next try, as long as the other side asks; raises ``error`` where there
        is to be none. ``cost``: how many tries this one was."""
        self._left -= cost
        if self._left <= 0 or (seconds or 0.0) > LONGEST_WAIT:
            raise error
        if seconds is None:
            seconds = self._pause * random.uniform(0.5, 1.0)  # so that not all come back at once
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        time.sleep(seconds)
