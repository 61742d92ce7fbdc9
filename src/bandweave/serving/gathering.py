"""Gathering: from the machines that have joined a cluster to the nodes that hold a model.

Waits until they suffice, has them measured where nobody has, and lets the planner choose who takes
part, in which shares and stages. Knows a model's needs; starts no model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs, resolve_context
from bandweave.membership.allotment import Allotment
from bandweave.membership.launcher import LeftOut, MemberLauncher, Placed
from bandweave.membership.membership import Membership
from bandweave.membership.messages import Machine
from bandweave.mesh.address import format_address, is_loopback, parse_address
from bandweave.mesh.routes import Route, best_routes
from bandweave.planning.profile.profile import Profile
from bandweave.programs.split import make_split
from bandweave.serving.cluster_plan import ClusterPlanner
from bandweave.serving.cluster_problem import ClusterProblem, one_node, rooms_of
from bandweave.serving.group_planner import PlannedGroup
from bandweave.serving.member_profiles import measure_members
from bandweave.serving.prediction import stored_profile
from bandweave.serving.replanning import Replanner
from bandweave.serving.watcher import Watcher
from bandweave.serving.wish import Wish

_SETTLE_SECONDS = 1.5  # in which nobody else has come: several that start at once are one cluster
_LOOK_SECONDS = 2.0  # between two looks at whether those that have joined can be reached


@dataclass(frozen=True, kw_only=True)
class GatheredGroup:
    """``options`` name the machines that were chosen, which ``launcher`` starts; ``why`` so, in
    sentences; ``remarks``: who holds nothing, and why not."""

    options: EngineOptions
    launcher: MemberLauncher
    why: tuple[str, ...]
    chosen: tuple[Placed, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Groups that each hold the whole model; ``replanner`` divides it among those that are left
    later."""

    groups: tuple[GatheredGroup, ...]
    replanner: Replanner

    @property
    def sentences(self) -> list[str]:
        """What the user is told of it."""
        told = []
        for number, group in enumerate(self.groups):
            name = f"group {number}: " if len(self.groups) > 1 else ""
            told += [f"{name}{sentence}" for sentence in (*group.why, *group.remarks)]
        return told


class Gathering:
    """The machines of one cluster, for one model."""

    def __init__(self, membership: Membership, wish: Wish) -> None:
        self.membership, self._wish = membership, wish
        self._routes: dict[str, tuple[Route, ...]] = {}  # by worker
        self.gathered: Gathered | None = None  # what it came to

    def gather(self, folder: Folder, options: EngineOptions, watcher: Watcher) -> Gathered:
        """Waits for as long as it takes. ``ValueError`` and ``MemoryError`` for what no machine
        could mend."""
        context = resolve_context(folder, options)
        options = replace(options, secret=self.membership.secret)
        whole = node_needs(
            folder, make_split(folder.spec, (Fraction(1),)), one_node(options), context
        )[0].total_bytes
        while True:
            machines = self._await(folder, whole, watcher)
            gathered = self._plan(folder, options, context, machines, watcher)
            if gathered is not None:
                self.gathered = gathered
                for sentence in gathered.sentences:
                    watcher.remark(sentence)
                return gathered
            lack = (
                f"more memory: {folder.path.name}{self._times} does not fit on "
                f"{_count(len(machines), 'machine')} with {_gigabytes(_available(machines))} free"
            )
            watcher.gathering(lack)
            self.membership.wait(self.membership.machines, _LOOK_SECONDS * 5)

    def has_changed(self, gathered: Gathered) -> bool:
        """Whether a machine that was chosen has gone since, which explains what went wrong there:
        then others are to be gathered."""
        chosen = {one.machine.worker for group in gathered.groups for one in group.chosen}
        deadline = time.monotonic() + _LOOK_SECONDS
        while True:
            members = self.membership.machines
            if not chosen <= {machine.worker for machine in members}:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.membership.wait(members, left)

    # --- waiting ---

    def _await(self, folder: Folder, whole: int, watcher: Watcher) -> list[Machine]:
        """The machines that can be reached, once they may suffice and nobody else comes."""
        said = ""
        while True:
            members = self.membership.machines
            machines, lost = self._reachable(members)
            lack = self._lack(folder, machines, lost, whole)
            left = self.membership.changed_at + _SETTLE_SECONDS - time.monotonic()
            if not lack and (left <= 0 or len(machines) == self._wish.all_machines):
                return machines[: self._wish.all_machines]
            if lack and lack != said:
                watcher.gathering(lack)
                said = lack
            self.membership.wait(members, _LOOK_SECONDS if lack else max(0.05, left))

    def _reachable(self, members: Sequence[Machine]) -> tuple[list[Machine], list[Machine]]:
        """Those that answer at one of their addresses at least, and those that do not."""
        for machine in members:
            if not self._routes.get(machine.worker):
                self._routes[machine.worker] = _for_all(best_routes(machine.places))
        found = [one for one in members if self._routes[one.worker]]
        return found, [one for one in members if not self._routes[one.worker]]

    def _lack(
        self, folder: Folder, machines: Sequence[Machine], lost: Sequence[Machine], whole: int
    ) -> str:
        """What is waited for; empty where nothing is."""
        where, wanted = self.membership.where, self._wish.all_machines
        unreached = ""
        if lost:
            names = ", ".join(f"{one.host} ({', '.join(one.addresses)})" for one in lost)
            unreached = f"; {names} joined but cannot be reached from here: is its port open?"
        if not machines:
            return f"machines: none has joined at {where} yet{unreached}"
        there = _count(len(machines), "machine")
        if len(machines) < self._wish.least_machines:
            return (
                f"machines: {there} of {self._wish.least_machines} joined at {where} so far"
                f"{unreached}"
            )
        free, whole = _available(machines), whole * self._wish.copies
        if wanted is None and free < whole:
            return (
                f"machines: {folder.path.name}{self._times} needs {_gigabytes(whole)}, and the "
                f"{there} that "
                f"joined at {where} so far can give {_gigabytes(free)}{unreached}"
            )
        return ""

    @property
    def _times(self) -> str:
        """How often a model is to be held, behind its name."""
        copies = self._wish.copies
        return "" if copies == 1 else f" ({copies} copies)"

    # --- planning ---

    def _plan(
        self,
        folder: Folder,
        options: EngineOptions,
        context: int,
        machines: Sequence[Machine],
        watcher: Watcher,
    ) -> Gathered | None:
        """None where the machines cannot hold the model."""
        placed = self._placed(machines)
        problem = ClusterProblem(
            folder=folder,
            options=options,
            context=context,
            wish=self._wish,
            machines=machines,
            names=[format_address(one.address) for one in placed],
            profile=self._profile(placed, options, watcher),
        )
        groups = ClusterPlanner(problem, watcher.remark).plan()
        if groups is None:
            return None
        allotment = Allotment(
            [
                [machines[number] for number in (*one.machines, *one.spare, *one.left_out)]
                for one in groups
            ]
        )
        gathered = tuple(
            self._gathered(options, placed, one, number, allotment)
            for number, one in enumerate(groups)
        )
        replanner = Replanner(problem)
        for one in gathered:
            replanner.keep(one.options, one.why)
        return Gathered(groups=gathered, replanner=replanner)

    def _gathered(
        self,
        options: EngineOptions,
        placed: Sequence[Placed],
        group: PlannedGroup,
        number: int,
        allotment: Allotment,
    ) -> GatheredGroup:
        membership = self.membership
        chosen, spare, left_out = (
            [placed[one] for one in some] for some in (group.machines, group.spare, group.left_out)
        )
        return GatheredGroup(
            options=replace(
                options,
                hosts=tuple(format_address(one.address) for one in chosen),
                shares=group.shares,
                stages=group.stages,
                fit=self._wish.shares is None,
                spare=len(spare),
                spare_hosts=tuple(format_address(one.address) for one in spare),
                encryption=self._wish.encryption,
            ),
            launcher=MemberLauncher(
                membership,
                chosen,
                left_out=[LeftOut(machine=one.machine, reason=group.reason) for one in left_out],
                own=lambda machine: allotment.group_of(machine, membership.machines) == number,
                encryption=self._wish.encryption,
            ),
            why=group.why,
            chosen=tuple(chosen),
            remarks=_remarks(spare, left_out, group.reason),
        )

    def _profile(
        self, placed: Sequence[Placed], options: EngineOptions, watcher: Watcher
    ) -> Profile:
        if self._wish.shares is not None or len(placed) < 2:
            return stored_profile()  # a look would decide nothing
        return measure_members(self.membership, placed, options, self._wish.encryption, watcher)

    def _placed(self, machines: Sequence[Machine]) -> list[Placed]:
        """Each at the address at which the controller reaches it, its name in profiles."""
        routes = [self._routes[machine.worker][0] for machine in machines]
        return [
            Placed(machine=machine, address=parse_address(route.address))
            for machine, route in zip(machines, routes, strict=True)
        ]


def _for_all(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Those by which other machines come there too. Loopback is the quickest way to a worker of
    this machine, and no way from another one."""
    shared = [one for one in routes if not is_loopback(parse_address(one.address)[0])]
    return tuple(shared or routes)


def _available(machines: Sequence[Machine]) -> int:
    return sum(rooms_of(machines))


def _remarks(spare: Sequence[Placed], left_out: Sequence[Placed], reason: str) -> tuple[str, ...]:
    """Who holds nothing of the model, in sentences."""
    remarks = [f"{_people(spare)} {_are(spare)} held ready."] if spare else []
    if left_out:
        remarks.append(f"{_people(left_out)} {_are(left_out)} left out: {reason}.")
    return tuple(remarks)


def _people(placed: Sequence[Placed]) -> str:
    return " and ".join(f"{one.machine.host} ({format_address(one.address)})" for one in placed)


def _are(placed: Sequence[Placed]) -> str:
    return "is" if len(placed) == 1 else "are"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
