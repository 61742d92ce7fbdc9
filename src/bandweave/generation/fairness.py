"""Fairness: who has been served how much, so that those who ask share a machine alike.

Virtual token counters (Sheng and others, "Fairness in serving large language models", OSDI 2024):
each key's counter grows by the tokens that were computed for it, over its weight, and whoever comes
back begins no lower than the least of those who are being served. Pure; knows no requests.
"""

from __future__ import annotations

_READ, _WRITTEN = 1.0, 2.0  # what a token of a prompt and one of an answer count
_MOST_KEYS = 1 << 16  # of which none is being served; the oldest are forgotten


class Fairness:
    """Counters by key. A key is active from its first ``enter`` to its last ``leave``."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._active: dict[str, int] = {}

    def served(self, key: str) -> float:
        """The key's counter; 0 for one that never was."""
        return self._served.get(key, 0.0)

    def enter(self, key: str) -> None:
        """A request arrives."""
        if key not in self._active:
            others = [self._served[other] for other in self._active]
            own = self._served.pop(key, 0.0)
            self._served[key] = max(own, min(others, default=own))
            self._forget()
        self._active[key] = self._active.get(key, 0) + 1

    def leave(self, key: str) -> None:
        """A request has ended."""
        self._active[key] -= 1
        if not self._active[key]:
            del self._active[key]

    def count(self, key: str, *, read: int = 0, written: int = 0, weight: float = 1.0) -> None:
        """Tokens were computed for a request."""
        self._served[key] = self.served(key) + (_READ * read + _WRITTEN * written) / weight

    def _forget(self) -> None:
        while len(self._served) > _MOST_KEYS + len(self._active):
            del self._served[next(key for key in self._served if key not in self._active)]
