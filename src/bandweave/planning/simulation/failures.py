"""Failures: machines that fail and come back, and what becomes of their replica's streams.

Without a takeover all wait until the machine is back. With one, the loss is noticed, the machines
that are left (spares too) are arranged anew and load what they lack; streams go on meanwhile at
other replicas that have places. In either case whoever goes on reads prompt and answer so far
again, since caches are of no use in another split. A machine that is back is taken in at once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bandweave.planning.simulation.replica import Replica, Stream
from bandweave.planning.simulation.scenario import Scenario
from bandweave.planning.simulation.server import Batch
from bandweave.planning.simulation.takeover import (
    Arrangement,
    Holding,
    Lineup,
    Recovered,
)


class World(Protocol):
    """The simulation, as failures see it."""

    scenario: Scenario
    random: random.Random
    replicas: list[Replica]
    waiting: deque[Stream]
    now: float
    recomputed: int

    def at(self, delay: float, action: Callable[[], None]) -> None: ...
    def admit(self) -> None: ...
    def read(self, replica: Replica, stream: Stream) -> None: ...


@dataclass(eq=False)
class _Outage:
    """From a failure to the next token of every stream that it interrupted."""

    at_s: float
    notice_s: float
    before: int
    plan_s: float = 0.0
    load_s: float = 0.0
    lacking_since: float | None = None
    waited_s: float = 0.0
    resumed_s: float | None = None
    after: int = 0
    pending: set[Stream] = field(default_factory=set)
    streams: int = 0
    prefill_s: float | None = None


@dataclass(eq=False)
class _Group:
    """A replica's machines. ``held``: what each has in memory, up to date or not; ``prepared``:
    whether what is kept for standby is that of the present arrangement."""

    lineup: Lineup | None
    up: set[int]
    arrangement: Arrangement | None = None
    held: dict[int, Holding] = field(default_factory=dict)
    prepared: bool = True
    change: int = 0  # of plans under way the last counts
    outage: _Outage | None = None


class Failures:
    """Of all replicas of a world."""

    def __init__(self, world: World, lineups: Sequence[Lineup]) -> None:
        self._world = world
        self._takeover = world.scenario.takeover
        assert self._takeover is None or lineups
        self.count = self.returns = self.moved = 0
        self._outages: list[_Outage] = []
        self._groups: Mapping[Replica, _Group] = {
            replica: self._group(replica, lineups[index] if lineups else None)
            for index, replica in enumerate(world.replicas)
        }

    def _group(self, replica: Replica, lineup: Lineup | None) -> _Group:
        if self._takeover is None or lineup is None:
            return _Group(lineup=None, up=set(range(len(replica.server.machines))))
        group = _Group(lineup=lineup, up=set(range(len(lineup.machines))))
        group.arrangement = lineup.arrange(frozenset(group.up))
        assert group.arrangement is not None
        group.held = dict(group.arrangement.holdings)
        # One object: what works as it did at the start counts for the same stages.
        replica.whole = group.arrangement.server
        replica.form(group.arrangement.server)
        return group

    def begin(self) -> None:
        """The first failure of each machine."""
        if self._world.scenario.mean_uptime_s is not None:
            for replica, group in self._groups.items():
                for machine in sorted(group.up):
                    self._plan(replica, machine)

    def heard(self, replica: Replica, stream: Stream) -> None:
        """The first token of a stream after it was interrupted."""
        for outage in self._outages:
            if stream in outage.pending:
                outage.pending.discard(stream)
                if not outage.pending and outage.resumed_s is not None:
                    outage.prefill_s = self._world.now - outage.resumed_s

    def recovered(self) -> tuple[Recovered, ...]:
        return tuple(
            Recovered(
                at_s=one.at_s, notice_s=one.notice_s, plan_s=one.plan_s, load_s=one.load_s,
                prefill_s=one.prefill_s, waited_s=one.waited_s, before=one.before,
                after=one.after, streams=one.streams,
            )
            for one in self._outages
            if one.resumed_s is not None
        )  # fmt: skip

    # --- a machine fails ---

    def _plan(self, replica: Replica, machine: int) -> None:
        uptime = self._world.scenario.mean_uptime_s
        assert uptime is not None
        delay = self._world.random.expovariate(1 / uptime)
        self._world.at(delay, lambda: self._fail(replica, machine))

    def _fail(self, replica: Replica, machine: int) -> None:
        world, group = self._world, self._groups[replica]
        self.count += 1
        group.up.discard(machine)
        group.held.pop(machine, None)
        world.at(world.scenario.repair_s, lambda: self._back(replica, machine))
        takeover = self._takeover
        works = group.arrangement is None or machine in group.arrangement.holdings
        if takeover is not None and not works and not replica.down:
            # A spare, one that was left out, or a newcomer that had not finished loading.
            group.change += 1
            self._reconsider(replica, group)
            return
        self._interrupt(replica, group)
        if takeover is None:
            return
        notice = takeover.notice_s(world.random.random(), self._step_s(replica))
        if group.outage is None:
            group.outage = _Outage(
                at_s=world.now, notice_s=notice, before=len(group.up) + 1,
                pending=set(replica.active), streams=len(replica.active),
            )  # fmt: skip
            self._outages.append(group.outage)
        else:
            group.outage.notice_s += notice  # one more, before the first was got over
        self._later(group, notice, lambda: self._noticed(replica))

    def _interrupt(self, replica: Replica, group: _Group) -> None:
        world = self._world
        if not replica.down:
            replica.down, replica.down_since = True, world.now
        replica.drop()
        for stream in replica.active:
            if stream.failed is None:
                stream.failed = world.now

    def _noticed(self, replica: Replica) -> None:
        """Streams go on elsewhere, where there are places."""
        world = self._world
        places = world.scenario.streams
        for stream in list(replica.active):
            free = [r for r in world.replicas if not r.down and len(r.active) < places]
            if not free:
                break
            other = min(free, key=lambda one: len(one.active))
            replica.active.remove(stream)
            other.active.append(stream)
            self.moved += 1
            self._again(other, stream)
        self._arrange(replica)

    # --- the others take over ---

    def _arrange(self, replica: Replica) -> None:
        group, takeover = self._groups[replica], self._takeover
        assert group.lineup is not None and takeover is not None
        found = group.lineup.arrange(frozenset(group.up))
        outage = group.outage
        if found is None:  # until a machine is back
            group.arrangement = None
            if outage is not None and outage.lacking_since is None:
                outage.lacking_since = self._world.now
            return
        if outage is not None and outage.lacking_since is not None:
            outage.waited_s += self._world.now - outage.lacking_since
            outage.lacking_since = None
        load = takeover.load_s(found.lacking(group.held), prepared=group.prepared)
        if outage is not None:
            outage.plan_s, outage.load_s = takeover.plan_s, load
        self._later(group, takeover.plan_s + load, lambda: self._resume(replica, found))

    def _resume(self, replica: Replica, found: Arrangement) -> None:
        world, group = self._world, self._groups[replica]
        group.arrangement, group.held = found, dict(found.holdings)
        outage, group.outage = group.outage, None
        self._prepare(group)
        replica.form(found.server)
        replica.down = False
        replica.down_s += world.now - replica.down_since
        if outage is not None:
            outage.resumed_s, outage.after = world.now, len(found.holdings)
            outage.pending = {one for one in outage.pending if one.failed is not None}
            if not outage.pending:
                outage.prefill_s = 0.0
        for stream in list(replica.active):
            self._again(replica, stream)
        world.admit()

    def _prepare(self, group: _Group) -> None:
        """What is kept for standby is made ready for the next failure, beside the work."""
        takeover = self._takeover
        assert takeover is not None
        if not takeover.standby or group.arrangement is None:
            return
        group.prepared = False
        arrangement = group.arrangement
        most = max(one.weight_bytes for one in arrangement.holdings.values())

        def ready() -> None:
            if group.arrangement is arrangement:
                group.prepared = True

        self._world.at(most / takeover.load_bytes_per_s, ready)

    # --- a machine is back ---

    def _back(self, replica: Replica, machine: int) -> None:
        group = self._groups[replica]
        self._plan(replica, machine)
        group.up.add(machine)
        if self._takeover is None:
            if len(group.up) == len(replica.server.machines):
                replica.down = False
                replica.down_s += self._world.now - replica.down_since
                for stream in list(replica.active):
                    self._again(replica, stream)
                self._world.admit()
            return
        if replica.down:
            if group.arrangement is None:  # it is what they waited for
                self._arrange(replica)
            return
        self._reconsider(replica, group)

    def _reconsider(self, replica: Replica, group: _Group) -> None:
        """Takes in whoever is up and of use. The others work on while newcomers load; then all
        change over at once."""
        takeover = self._takeover
        assert group.lineup is not None and takeover is not None
        wanted = group.lineup.arrange(frozenset(group.up))
        if wanted is None or wanted is group.arrangement:
            return
        lacking = wanted.lacking(group.held)

        def change_over() -> None:
            self.returns += 1
            self._interrupt(replica, group)
            group.held = {**group.held, **wanted.holdings}
            self._later(group, takeover.plan_s, lambda: self._resume(replica, wanted))

        self._later(group, max(lacking.values(), default=0.0) / takeover.load_bytes_per_s,
                    change_over)  # fmt: skip

    # --- both ---

    def _later(self, group: _Group, delay: float, action: Callable[[], None]) -> None:
        """Unless something else happens to the group before."""
        group.change += 1
        change = group.change

        def act() -> None:
            if group.change == change:
                action()

        self._world.at(delay, act)

    def _again(self, replica: Replica, stream: Stream) -> None:
        scenario = self._world.scenario
        self._world.recomputed += scenario.prompt + stream.done if stream.done else 0
        self._world.read(replica, stream)

    def _step_s(self, replica: Replica) -> float:
        scenario = self._world.scenario
        batch = Batch(context=scenario.context, decoding=max(1, replica.batch))
        return sum(work + way for work, way in replica.server.times(batch))
