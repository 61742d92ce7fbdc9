"""Recoveries: a record of each failure of nodes and each change of who takes part. Plain data."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_REMEMBERED = 256


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How the nodes went on. ``node``: the one that failed, was taken in or got another share;
    ``cause``: a sentence; ``kind``: ``"failed"``, ``"joined"``, ``"balanced"``, or ``"moved"``,
    where streams went on at another group. ``newcomers``: the nodes that came in with it, and
    ``retired``: those that stood in for others and are not needed any more.

    Seconds: ``noticed`` from the last sign of life, or the end of the connection, to the verdict;
    ``planned`` from there until the nodes that are left were told what to hold; ``loaded`` until
    all held it; ``prefilled`` from there until the first of the ``streams`` that were under way had
    its next token, 0 where none was. ``waited``: for a machine, where those that were left could
    not hold the model. ``at``: of the verdict, since the epoch. ``over``: whether answers go on.
    """

    node: str
    cause: str
    kind: str = "failed"
    noticed_s: float = 0.0
    planned_s: float = 0.0
    loaded_s: float = 0.0
    prefilled_s: float = 0.0
    waited_s: float = 0.0
    nodes_before: int = 0
    nodes_after: int = 0
    streams: int = 0
    at: float = 0.0
    over: bool = False
    newcomers: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """From the last sign of life to the next token."""
        parts = (self.noticed_s, self.planned_s, self.loaded_s, self.prefilled_s, self.waited_s)
        return sum(parts)


class Recoveries:
    """The last ones, and how many there were. Any thread may read and write."""

    def __init__(self) -> None:
        self._kept: deque[Recovery] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Since the start."""
        return self._count

    def all(self) -> Sequence[Recovery]:
        """Oldest first."""
        with self._lock:
            return list(self._kept)

    def begin(self, recovery: Recovery) -> None:
        with self._lock:
            self._kept.append(recovery)
            self._count += 1

    def replace(self, recovery: Recovery) -> None:
        """More is known of the latest one."""
        with self._lock:
            self._kept[-1] = recovery
