"""Suspects: calls that may have made the nodes fail, and show one by one that they do not. Decides;
has nothing computed. One thread uses it, but for its length."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bandweave.cluster.carried import Carried


class Suspects:
    """A call proves that its next token can be computed, on nodes that compute nothing else."""

    def __init__(self) -> None:
        self._calls: deque[Carried] = deque()
        self._proving: Carried | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, tried: Sequence[Carried]) -> None:
        """These were computed when the nodes failed: they come first."""
        known = [call for call in self._calls if call not in tried]
        self._calls = deque([*tried, *known])

    def begin_again(self) -> None:
        """The nodes have failed: whatever was to be proved has not been."""
        self._proving = None

    def next_to_prove(self) -> Carried | None:
        """The call that is to be computed alone now; None while one is, or where none is left."""
        while self._calls:
            call = self._calls[0]
            if call is self._proving and call.attached:
                return None
            if call is not self._proving and not call.over:
                self._proving = call
                return call
            self._proving = None
            self._calls.popleft()
        return None
