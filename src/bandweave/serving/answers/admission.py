"""Admission: how many may wait, and how long whoever is turned away had better stay away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bandweave.serving.errors import ApiError

_REMEMBERED = 64  # ends of waiting, from which the next are foretold
_MOST_SECONDS = 120.0  # clients heed no more


class Admission:
    """Counts those that have asked and have no token yet. ``most_requests`` and ``most_tokens`` of
    their prompts may wait; 0 for any number."""

    def __init__(
        self,
        *,
        most_requests: int = 0,
        most_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_requests, self._most_tokens, self._clock = most_requests, most_tokens, clock
        self._tokens: dict[object, int] = {}
        self._served: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self.refused = 0

    @property
    def waiting(self) -> int:
        return len(self._tokens)

    @property
    def waiting_tokens(self) -> int:
        return sum(self._tokens.values())

    def enter(self, one: object, tokens: int) -> None:
        """One more waits. ``ApiError`` 429 where too many do; a single one is never too many."""
        requests = self._most_requests and self.waiting >= self._most_requests
        queued = self.waiting_tokens
        if requests or (self._most_tokens and queued and queued + tokens > self._most_tokens):
            self.refused += 1
            seconds = self.retry_after(tokens)
            raise ApiError(
                429,
                f"{self.waiting} requests with {queued} tokens wait already; try again in "
                f"{seconds:.0f} s",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=seconds,
            )
        self._tokens[one] = tokens

    def leave(self, one: object) -> None:
        """It has a token, or has gone. May be called more than once."""
        tokens = self._tokens.pop(one, None)
        if tokens is not None:
            self._served.append((self._clock(), tokens))

    def retry_after(self, tokens: int = 0) -> float:
        """Seconds until there is probably room for so many tokens: by the pace at which the last
        ones were served."""
        if len(self._served) < 2:
            return 1.0
        seconds = self._clock() - self._served[0][0]
        per_request = seconds / len(self._served)
        read = sum(tokens for _, tokens in self._served)
        wanted = (
            max(0, self.waiting_tokens + tokens - self._most_tokens) if self._most_tokens else 0
        )
        return min(_MOST_SECONDS, max(1.0, per_request, seconds * wanted / max(1, read)))
