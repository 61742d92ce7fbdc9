"""StandbyWatch: has an engine's nodes hold ready what they would need if one of them were gone, and
tells what that costs and buys. Knows an engine; decides nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandweave.engine.division import Divide
from bandweave.engine.engine import Engine
from bandweave.engine.memory import gigabytes
from bandweave.executors.executor import StepError
from bandweave.messages import StandbyState

_LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class StandbySummary:
    """``where``: ``"memory"`` or ``"disk"``; ``num_bytes``: packed, of each node; ``seconds`` that
    a node would need for them with all its threads, at most; ``over``: all is ready, but for what
    ``reasons`` say."""

    where: str
    num_bytes: Sequence[int] = ()
    seconds: float = 0.0
    over: bool = False
    reasons: Sequence[str] = ()


class StandbyWatch:
    """For one thread; ``summary`` may be read by any. ``divide``: among those that would be
    left."""

    def __init__(self, engine: Engine, divide: Divide, tell: Callable[[str], None]) -> None:
        self._engine, self._divide, self._tell = engine, divide, tell
        self._asked_at: float | None = None
        where = engine.options.standby
        self.summary = StandbySummary(where=where) if where else None

    def begin(self) -> None:
        """Other nodes go on now, or the same ones in other shares."""
        if self.summary is None:
            return
        self._asked_at = None
        alone = len(self._engine.handles) < 2
        reasons = ("one node alone has no neighbour to lose",) if alone else ()
        self.summary = StandbySummary(where=self.summary.where, over=alone, reasons=reasons)
        if alone:
            return
        with contextlib.suppress(StepError):  # seen by whoever looks for failures
            self._engine.stand_by(self._divide, on_disk=self.summary.where == "disk")
            self._asked_at = time.monotonic()

    def look(self) -> None:
        """Asks now and then how far the nodes are, and tells once they are ready."""
        if self.summary is None or self._asked_at is None or self.summary.over:
            return
        if time.monotonic() - self._asked_at < _LOOK_SECONDS:
            return
        self._asked_at = time.monotonic()
        try:
            states = self._engine.standby_states()
        except StepError:
            return
        self.summary = _summary(self.summary.where, states, self._engine)
        if self.summary.over:
            self._tell(told(self.summary))


def _summary(where: str, states: Sequence[StandbyState], engine: Engine) -> StandbySummary:
    nodes = engine.nodes
    return StandbySummary(
        where=where,
        num_bytes=[one.num_bytes for one in states],
        seconds=max(one.seconds / node.threads for one, node in zip(states, nodes, strict=True)),
        over=all(one.over for one in states),
        reasons=[
            f"{node.name}: {one.reason}"
            for one, node in zip(states, nodes, strict=True)
            if one.reason
        ],
    )


def told(summary: StandbySummary) -> str:
    """What it costs and what it buys."""
    if summary.reasons:
        return f"standby weights: not all is ready: {'; '.join(summary.reasons)}"
    place = "memory" if summary.where == "memory" else "the cache on disk"
    return (
        f"standby weights: {gigabytes(sum(summary.num_bytes))} in {place}, "
        f"{gigabytes(max(summary.num_bytes))} at most on a node; if one is lost, the others need "
        f"not load for some {summary.seconds:.1f} s"
    )
