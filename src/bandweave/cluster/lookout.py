"""Lookout: who is silent, and whether nodes should change though none has failed: for machines that
are ready, or for one that has become slow.

Judges; changes nothing. One thread uses it, but for ``silent`` and ``nodes``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction

from bandweave.cluster.carried import Carried
from bandweave.cluster.health import NodeHealth
from bandweave.cluster.roster import Roster
from bandweave.cluster.shares import divide, gain
from bandweave.cluster.slowness import Slowness
from bandweave.cluster.takeover import Takeover
from bandweave.cluster.taking_in import is_worth
from bandweave.engine.engine import Engine
from bandweave.executors.executor import StepError

_IDLE_SILENCE = 15.0  # of a node while nobody asks: a cable may be out for a while
_BILL_SECONDS = 5.0  # between two looks at the nodes' bills
_BALANCE_SECONDS = 60.0  # between two changes for the sake of speed
_LEAST_GAIN = 1.25  # for which shares are changed
_READ_RATE = 500.0  # prompt tokens a second, until more is known


class Lookout:
    """``calls``: what is under way or waits."""

    def __init__(
        self, engine: Engine, takeover: Takeover, roster: Roster, slowness: Slowness
    ) -> None:
        self._engine, self._takeover = engine, takeover
        self._roster, self._slowness = roster, slowness
        self._billed_at = self._balanced_at = time.monotonic()
        self._slow_since: float | None = None
        self._balanced = False  # whether shares are those of nodes that had become slow
        self._read_rate = _READ_RATE

    @property
    def bound(self) -> float:
        """Seconds without a sign of life, behind which a node counts as silent."""
        return self._engine.options.stall_seconds

    def silent(self) -> list[int]:
        """The nodes that serve, by their ranks, which give no sign of life. Any thread."""
        silences = self._engine.silences()
        return [rank for rank, silence in enumerate(silences) if silence > self.bound]

    def nodes(self, *, serving: bool) -> list[NodeHealth]:
        """How those are that are nodes now; ``serving``: whether they compute answers. Any
        thread."""
        engine, found = self._engine, list[NodeHealth]()
        infos = engine.nodes
        held = {info.name: info for info in infos} if serving else {}
        whole = sum(info.weight_bytes for info in held.values()) or 1
        names = [info.name for info in infos]
        slowed = dict(zip(names, self._slowness.slowed(names), strict=True))
        for handle, silence in zip(engine.handles, engine.silences(), strict=False):
            state = "serving"
            if not serving:
                state = "loading"
            elif silence > self.bound:
                state = "silent"
            found.append(
                NodeHealth(
                    node=handle.node,
                    name=handle.name,
                    state=state,
                    since=silence if state == "silent" else 0.0,
                    slowed=slowed.get(handle.name, 1.0),
                    stage=info.share.stage if (info := held.get(handle.name)) else None,
                    share=info.weight_bytes / whole if info else None,
                )
            )
        return found

    def unanswered(self, calls: Sequence[Carried]) -> list[int]:
        """Those of them that somebody would wait for, or that have been silent for long while
        others are not. Whoever computes judges its peers itself, and better."""
        silent = self.silent()
        if not silent or any(not call.attached for call in calls):
            return silent
        longest = max(self._engine.silences())
        alone = len(silent) < len(self._engine.handles)
        return silent if not calls and alone and longest > _IDLE_SILENCE else []

    def should_join(self, calls: Sequence[Carried]) -> bool:
        """Whether machines that are ready should take part now."""
        ready = self._roster.ready()[: self._takeover.room]  # spare ones wait for a failure
        if not ready:
            return False
        nodes, wanted = self._nodes(), self._takeover.seats.wanted
        more = sum(divide([*nodes, *(handle.node for handle in ready)], wanted, {}))
        now = sum(divide(nodes, wanted, {})) or Fraction(1)
        return is_worth(
            pause=self._pause(calls),
            gain=float(more / now),
            waited=self._roster.waited(),
            idle=not calls,
        )

    def should_balance(self, calls: Sequence[Carried]) -> bool:
        """Whether a node that has become slow should have a smaller share now, or one that is as
        fast as ever again its own. Asks the nodes for their bills now and then."""
        now, engine = time.monotonic(), self._engine
        if not calls or now - self._billed_at < _BILL_SECONDS or len(engine.handles) < 2:
            return False
        self._billed_at = now
        try:
            statistics = engine.statistics()
        except StepError:
            return False  # seen at the next look
        self._slowness.look(statistics)
        prefill = statistics[0].prefill
        if prefill["rows"] and prefill["wall"]:
            self._read_rate = prefill["rows"] / prefill["wall"]
        nodes, slowed, wanted = self._nodes(), self._takeover.slowed(), self._takeover.seats.wanted
        new = divide(nodes, wanted, slowed)
        better = gain(nodes, engine.options.shares, new, wanted, slowed)
        slow = any(times > 1.0 for times in slowed.values())
        if better < _LEAST_GAIN or not (slow or self._balanced):
            self._slow_since = None
            return False
        self._slow_since = self._slow_since or now
        waited = now - self._slow_since
        if now - self._balanced_at < _BALANCE_SECONDS or not is_worth(
            pause=self._pause(calls), gain=better, waited=waited, idle=False
        ):
            return False
        self._balanced_at, self._slow_since, self._balanced = now, None, slow
        return True

    def _nodes(self) -> list[int]:
        return [self._takeover.seats.of(handle) for handle in self._engine.handles]

    def _pause(self, calls: Sequence[Carried]) -> float:
        """Seconds for which answers would stand still."""
        return self._takeover.pause + sum(call.length for call in calls) / self._read_rate
