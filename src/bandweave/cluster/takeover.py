"""Takeover: has an engine go on with other nodes, however many tries that takes, and keeps account
of it.

Knows nodes; knows no requests. One thread uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from bandweave.cluster.health import Outage
from bandweave.cluster.recoveries import Recoveries, Recovery
from bandweave.cluster.roster import Roster
from bandweave.cluster.seats import Seats
from bandweave.cluster.shares import divide
from bandweave.cluster.slowness import Slowness
from bandweave.cluster.unavailable import Unavailable
from bandweave.engine.division import Division
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.nodes.failure import NodeFailure, NodeMistake
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.node_handle import NodeHandle

Choose = Callable[[EngineOptions], EngineOptions]

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 10.0  # memory that others took may be free again
_TRIES = 4  # in a row, without a pause
_LEAST_RETRY, _LONGEST_RETRY = 1.0, 60.0


def keep_options(options: EngineOptions) -> EngineOptions:
    """Shares as they are given."""
    return options


class Waiting(Protocol):
    """Who keeps the requests meanwhile."""

    def look_while_waiting(self, seconds: float) -> bool:
        """Waits for news; False once all is over."""
        ...

    def give_up(self, error: Unavailable) -> None:
        """Nobody waits any longer."""
        ...

    @property
    def open(self) -> int: ...


class Takeover:
    """``seats``: where the nodes stand; ``pause``: what the last change took, without reading
    prompts again."""

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        roster: Roster,
        recoveries: Recoveries,
        slowness: Slowness,
        *,
        choose: Choose,
        keeper: Waiting,
        tell: Callable[[str], None],
    ) -> None:
        self._engine, self._launcher, self._roster = engine, launcher, roster
        self._recoveries, self._slowness = recoveries, slowness
        self._choose, self._keeper, self._tell = choose, keeper, tell
        self._started = engine.options
        numbers = [handle.node for handle in engine.handles]
        self.seats = Seats(numbers, engine.options.shares)
        self._limit = len(numbers) if engine.options.spare else None
        self.pause = 1.0 if launcher.local else 5.0
        self._out: tuple[float, str, bool] | None = None  # since, why, and whether nobody waits
        self._planned_at = 0.0
        self._gone: set[int] = set()  # who has just failed, and may seem to be there

    @property
    def outage(self) -> Outage | None:
        """While nobody can hold the model. Any thread."""
        out = self._out
        if out is None:
            return None
        since, reason, over = out
        # Machines are looked for once a second; one that comes has to load the model first.
        retry = min(_LONGEST_RETRY, max(_LEAST_RETRY, _LOOK_SECONDS + self.pause))
        return Outage(
            reason=reason, seconds=time.monotonic() - since, retry=retry, over_patience=over
        )

    def slowed(self) -> dict[int, float]:
        """By the nodes' places."""
        handles = self._engine.handles
        times = self._slowness.slowed([handle.name for handle in handles])
        return {self.seats.of(handle): one for handle, one in zip(handles, times, strict=True)}

    # --- who takes part ---

    @property
    def room(self) -> int | None:
        """How many machines may be taken in: where there are spare ones, as many as are missing,
        or are ready beyond those; None for any number."""
        if self._limit is None:
            return None
        more = len(self._roster.ready()) - self._started.spare
        return max(0, self._limit - len(self._staying()), more)

    def _staying(self) -> list[NodeHandle]:
        """The nodes that have not failed."""
        return [one for one in self._engine.handles if one.alive() and one.node not in self._gone]

    def send_away(self) -> None:
        """Whoever is ready to stand in for others that are all there again."""
        ready = self._roster.ready()
        staying = self._staying()
        over = self._launcher.superfluous([one.node for one in (*staying, *ready)])
        for handle in ready:
            if handle.node in over:
                self._roster.release(handle)
                self._launcher.dismiss(handle)

    # --- changes ---

    def after(self, failure: StepError) -> Recovery | None:
        """With those that are left after a failure."""
        return self._run(self._blame(failure), kind="failed")

    def without(self, silent: Sequence[int]) -> Recovery | None:
        """Without nodes, by their ranks, that give no sign of life."""
        handles, silences = self._engine.handles, self._engine.silences()
        for rank in silent:
            handle = handles[rank]
            if rank != silent[0]:
                reason = f"has given no sign of life for {silences[rank]:.0f} s"
                self._roster.note_failure(handle.node, reason)
            self._launcher.dismiss(handle)
        first = silent[0]
        sentence = f"{handles[first].name} has given no sign of life for {silences[first]:.0f} s"
        failure = NodeFailure(sentence, culprit=first, gone=True, noticed=silences[first])
        return self._run(self._blame(failure), kind="failed")

    def join(self) -> Recovery | None:
        """With whoever is ready."""
        names = ", ".join(handle.name for handle in self._roster.ready())
        if not names:
            return None
        verb = "take" if ", " in names else "takes"
        return self._run(Recovery(node=names, cause=f"{names} {verb} part"), kind="joined")

    def balance(self) -> Recovery | None:
        """In shares that suit how fast the nodes are now."""
        slow = [
            f"{handle.name} takes {times:.1f} times as long as it did"
            for handle, times in zip(self._engine.handles, self.slowed().values(), strict=True)
            if times > 1.0
        ]
        cause = "; ".join(slow) or "the nodes are as fast as ever again"
        return self._run(Recovery(node="", cause=cause), kind="balanced")

    # --- how ---

    def _blame(self, failure: StepError) -> Recovery:
        """Notes who failed; one that still answers is given another try, once."""
        culprit = failure.culprit if isinstance(failure, NodeFailure) else None
        noticed = failure.noticed if isinstance(failure, NodeFailure) else 0.0
        name = ""
        if culprit is not None and culprit < len(self._engine.handles):
            handle = self._engine.handles[culprit]
            if isinstance(failure, NodeFailure) and failure.gone:
                self._gone.add(handle.node)
            name = handle.name
            again = self._roster.fails_again(handle.node)
            self._roster.note_failure(handle.node, str(failure))
            if again and isinstance(failure, NodeFailure) and not failure.gone:
                self._launcher.dismiss(handle)
        return Recovery(node=name, cause=str(failure), noticed_s=noticed)

    def _run(self, begun: Recovery, *, kind: str) -> Recovery | None:
        """Tries until nodes go on; what is known of it but for the prefill. None once all is
        over."""
        recovery = self._begin(begun, kind)
        verdict_at, waited, tries = time.monotonic(), 0.0, 0
        came, went = list[NodeHandle](), list[NodeHandle]()
        while True:
            self._planned_at = 0.0
            newcomers, retired = self._gather()
            came += newcomers
            went += retired
            self.seats.seat(newcomers, [one for one in self._staying() if one not in retired])
            tries += 1
            reason = ""
            try:
                self._engine.rejoin(
                    self.division,
                    newcomers=newcomers,
                    retired=retired,
                    place=self.seats.of,
                    on_planned=self._note_planned,
                )
                break
            except NodeMistake as error:
                self._note_mistake(error)
                recovery = self._begin(self._known(recovery, str(error)), kind)
            except (MemoryError, ValueError) as error:
                if newcomers:  # those that are left may do better without
                    self._turn_away(newcomers, str(error))
                else:
                    reason = str(error) or "the nodes that are left have not enough memory"
            except (StepError, OSError) as error:
                if not self._engine.handles:
                    reason = str(recovery.cause)
                elif isinstance(error, NodeFailure):
                    recovery = self._begin(self._blame(error), kind)
                    verdict_at, waited = time.monotonic(), 0.0
                if tries % _TRIES == 0 and not reason:
                    reason = str(error)
            if reason:
                began = time.monotonic()
                if not self._await_machine(reason):
                    return None
                waited += time.monotonic() - began
        recovery = replace(
            recovery,
            newcomers=tuple(one.name for one in came if one in self._engine.handles),
            retired=tuple(one.name for one in went),
        )
        return self._settle(recovery, verdict_at, waited)

    def _gather(self) -> tuple[list[NodeHandle], list[NodeHandle]]:
        """Who comes in, and which nodes go that stood in for those."""
        newcomers, staying = self._roster.take(self.room), self._staying()
        over = self._launcher.superfluous([one.node for one in (*staying, *newcomers)])
        for handle in newcomers:
            if handle.node in over:
                self._launcher.dismiss(handle)
        return (
            [one for one in newcomers if one.node not in over],
            [one for one in staying if one.node in over],
        )

    def _begin(self, begun: Recovery, kind: str) -> Recovery:
        recovery = replace(
            begun,
            kind=kind,
            at=time.time(),
            nodes_before=len(self._engine.nodes),
            streams=self._keeper.open,
        )
        self._recoveries.begin(recovery)
        if kind == "failed":
            self._tell(f"{recovery.cause}; going on without it")
        elif kind == "joined":
            self._tell(recovery.cause)
        elif kind == "balanced":
            self._tell(f"{recovery.cause}; the shares are changed")
        return recovery

    def _known(self, recovery: Recovery, cause: str) -> Recovery:
        return replace(recovery, cause=cause, noticed_s=0.0)

    def _settle(self, recovery: Recovery, verdict_at: float, waited: float) -> Recovery:
        now = time.monotonic()
        planned_at = self._planned_at or now
        self._out = None
        self._gone.clear()
        if self._limit is not None:  # a cluster may have grown
            self._limit = max(self._limit, len(self._engine.nodes))
        recovery = replace(
            recovery,
            planned_s=max(0.0, planned_at - verdict_at - waited),
            loaded_s=now - planned_at,
            waited_s=waited,
            nodes_after=len(self._engine.nodes),
        )
        self.pause = recovery.planned_s + recovery.loaded_s
        self._recoveries.replace(recovery)
        nodes = len(self._engine.nodes)
        told = f"serving again, on {nodes} {'node' if nodes == 1 else 'nodes'}"
        if recovery.newcomers and recovery.kind != "joined":
            told += f"; {', '.join(recovery.newcomers)} came in"
        if recovery.retired:
            told += f"; {', '.join(recovery.retired)} went, since nobody is missing any more"
        self._tell(told)
        return recovery

    def _note_planned(self) -> None:
        self._planned_at = time.monotonic()

    def division(self, handles: Sequence[NodeHandle]) -> Division:
        """By the planner where the machines' profiles say something, else in shares and stages as
        they were."""
        numbers = [self.seats.of(handle) for handle in handles]
        slowed, count = self.slowed(), len(handles)
        stages = min(self._started.stages, count)
        if self._started.fit and self._started.hosts:
            equal = (Fraction(1),) * count
            asked = replace(
                self._started,
                shares=equal,
                hosts=tuple(handle.host for handle in handles),
                stages=stages,
            )
            chosen = self._choose(asked)
            if chosen is not asked:
                own = dict(zip(numbers, chosen.shares, strict=True))
                return Division(shares=divide(numbers, own, slowed), stages=chosen.stages)
        return Division(shares=divide(numbers, self.seats.wanted, slowed), stages=stages)

    def _note_mistake(self, error: NodeMistake) -> None:
        handles = self._engine.handles
        if error.node < len(handles):
            self._roster.note_failure(handles[error.node].node, str(error))

    def _turn_away(self, newcomers: Sequence[NodeHandle], reason: str) -> None:
        for handle in newcomers:
            self._roster.note_failure(handle.node, reason)
            self._roster.note_failure(handle.node, reason)  # not again at once
            self._launcher.dismiss(handle)

    def _await_machine(self, reason: str) -> bool:
        """Waits for a machine, or for a while; False once all is over. Whoever waits is kept
        waiting for as long as the patience lasts."""
        began = time.monotonic()
        since, _, over = self._out or (began, "", False)
        self._out = since, reason, over
        if since == began:
            self._tell(f"waiting for a machine: {reason}")
        while self._keeper.look_while_waiting(_LOOK_SECONDS):
            now = time.monotonic()
            if now - since > self._started.patience:
                if not self._out[2]:
                    self._out = since, reason, True
                outage = self.outage
                assert outage is not None
                self._keeper.give_up(Unavailable(reason, outage.retry))
            if self._roster.ready() or now - began > _AGAIN_SECONDS:
                return True
        return False
