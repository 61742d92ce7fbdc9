"""Admission: how many may wait, and how long whoever is turned away had better stay away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bandweave.serving.errors import ApiError

_REMEMBERED = 64  # ends of waiting, from which the next are foretold
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 120.0  # clients heed no more
_UNKNOWN_SECONDS = 1.0  # while nobody has been served


class Admission:
    """Counts those that have asked and have no token yet. ``most_requests`` and ``most_tokens`` of
    their prompts may wait; 0 for any number. For one event loop."""

    def __init__(
        self,
        *,
        most_requests: int = 0,
        most_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_requests, self._most_tokens, self._clock = most_requests, most_tokens, clock
        self._tokens: dict[object, int] = {}
        # Of the last ones that were served: seconds in which somebody waited, up to then, and the
        # tokens of their prompts. An hour in which nobody came says nothing of the pace.
        self._served: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=_REMEMBERED)
        self._busy, self._since = 0.0, clock()
        self._promised = 0.0  # by the clock: up to when those that were turned away fill it up
        self.refused = 0

    @property
    def waiting(self) -> int:
        return len(self._tokens)

    @property
    def waiting_tokens(self) -> int:
        return sum(self._tokens.values())

    def enter(self, one: object, tokens: int) -> None:
        """One more waits. ``ApiError`` 429 where too many do; a single one is never too many."""
        self._pass()
        requests = self._most_requests and self.waiting >= self._most_requests
        queued = self.waiting_tokens
        if requests or (self._most_tokens and queued and queued + tokens > self._most_tokens):
            self.refused += 1
            seconds = self._promise(tokens)
            raise ApiError(
                429,
                f"{self.waiting} requests with {queued} tokens wait already; try again in "
                f"{max(1.0, seconds):.0f} s",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=seconds,
            )
        self._tokens[one] = tokens

    def leave(self, one: object, served: bool = True) -> None:
        """It has a token, or has gone without one. May be called more than once."""
        self._pass()
        tokens = self._tokens.pop(one, None)
        if tokens is not None and served:
            self._served.append((self._busy, tokens))

    def retry_after(self, tokens: int = 0) -> float:
        """Seconds until there is probably room for so many tokens: by the pace at which the last
        ones were served."""
        self._pass()
        pace, pace_of_token = self._paces()
        # What has passed of the next one's time. One that takes longer may take as long again.
        room = max(pace - (self._busy - self._served[-1][0]), pace / 4)
        if self._most_tokens:
            over = max(0, self.waiting_tokens + tokens - self._most_tokens)
            room = max(room, pace_of_token * over)
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, room))

    def _promise(self, tokens: int) -> float:
        """The same, for one that is told so: the next one finds the place taken."""
        now, seconds = self._clock(), self.retry_after(tokens)
        if self._promised > now:
            seconds = max(seconds, self._promised - now + self._paces()[0])
        seconds = min(_MOST_SECONDS, seconds)
        self._promised = now + seconds
        return seconds

    def _paces(self) -> tuple[float, float]:
        """Seconds that a request takes until its first token, and those for each of its prompt's
        tokens, while others wait."""
        (first, _), (last, _), count = self._served[0], self._served[-1], len(self._served) - 1
        if not count:
            return max(_UNKNOWN_SECONDS, self._busy), 0.0
        read = sum(tokens for _, tokens in self._served) - self._served[0][1]
        return (last - first) / count, (last - first) / max(1, read)

    def _pass(self) -> None:
        """Counts the time since the last event, if somebody waited."""
        now = self._clock()
        if self._tokens:
            self._busy += now - self._since
        self._since = now
