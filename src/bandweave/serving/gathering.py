"""Gathering: from the machines that have joined a cluster to the nodes that hold a model.

Waits until they suffice, measures those that nobody has measured, and lets the planner choose who
takes part, in which shares and stages. Knows a model's needs; starts no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs, resolve_context
from bandweave.environment import read_environment
from bandweave.executors.executor import StepError
from bandweave.formats.names import PROBED_FORMATS
from bandweave.membership.launcher import MemberLauncher, Placed
from bandweave.membership.membership import Membership
from bandweave.membership.messages import Machine
from bandweave.mesh.address import format_address, is_loopback, parse_address
from bandweave.mesh.routes import Route, best_routes
from bandweave.models.registry import build_graph
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.prediction import Load
from bandweave.planning.profile.profile import MachineProfile, Profile
from bandweave.planning.search.fit import fitting_shares
from bandweave.planning.search.measured import MeasuredPlan, plan_measured, reasons
from bandweave.programs.split import make_split
from bandweave.serving.prediction import find_predictor, levelled
from bandweave.serving.profile_store import read_profile, save_profile, why_stale
from bandweave.serving.watcher import Watcher

_SETTLE_SECONDS = 1.5  # in which nobody else has come: several that start at once are one cluster
_LOOK_SECONDS = 2.0  # between two looks at whether those that have joined can be reached
_TYPICAL = Load(prompt_tokens=256, new_tokens=128)  # what a split is chosen for
_PLANNED_IN = "q4"  # where blocks of a GGUF file stay as they are: of all, the nearest to most


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user has settled: how many ``machines``, their ``shares``, how many ``stages``;
    None for what the planner decides."""

    machines: int | None = None
    shares: tuple[Fraction, ...] | None = None
    stages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """``options`` name the machines that were chosen, which ``launcher`` starts; ``why`` so, in
    sentences."""

    options: EngineOptions
    launcher: MemberLauncher
    why: tuple[str, ...]
    chosen: tuple[Placed, ...]


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
            folder, make_split(folder.spec, (Fraction(1),)), _alone(options), context
        )[0].total_bytes
        while True:
            machines = self._await(folder, whole, watcher)
            profile = self._measure(machines, options, watcher)
            gathered = self._plan(folder, options, context, machines, profile, watcher)
            if gathered is not None:
                self.gathered = gathered
                for sentence in gathered.why:
                    watcher.remark(sentence)
                return gathered
            lack = (
                f"more memory: {folder.path.name} does not fit on "
                f"{_count(len(machines), 'machine')} with {_gigabytes(_available(machines))} free"
            )
            watcher.gathering(lack)
            self.membership.wait(self.membership.machines, _LOOK_SECONDS * 5)

    def has_changed(self, gathered: Gathered) -> bool:
        """Whether a machine that was chosen has gone since, which explains what went wrong there:
        then others are to be gathered."""
        chosen = {one.machine.worker for one in gathered.chosen}
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
            if not lack and (left <= 0 or len(machines) == self._wish.machines):
                return machines[: self._wish.machines]
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
        where, wanted = self.membership.where, self._wish.machines
        unreached = ""
        if lost:
            names = ", ".join(f"{one.host} ({', '.join(one.addresses)})" for one in lost)
            unreached = f"; {names} joined but cannot be reached from here: is its port open?"
        if not machines:
            return f"machines: none has joined at {where} yet{unreached}"
        there = _count(len(machines), "machine")
        if wanted is not None and len(machines) < wanted:
            return f"machines: {there} of {wanted} joined at {where} so far{unreached}"
        free = _available(machines)
        if wanted is None and free < whole:
            return (
                f"machines: {folder.path.name} needs {_gigabytes(whole)}, and the {there} that "
                f"joined at {where} so far can give {_gigabytes(free)}{unreached}"
            )
        return ""

    # --- measuring ---

    def _measure(
        self, machines: Sequence[Machine], options: EngineOptions, watcher: Watcher
    ) -> Profile:
        """What is known of the machines, after a look of a few seconds at those of which nothing
        is."""
        path = read_environment().profile
        try:
            known = read_profile(path)
        except ValueError:
            known = Profile()
        format = _measured_format(options)
        names = {machine.worker: self._name(machine) for machine in machines}
        new = [one for one in machines if not _knows(known, names[one.worker], one, format)]
        pairs = [(a, b) for i, a in enumerate(machines) for b in machines[:i]]
        unlinked = {
            one.worker
            for a, b in pairs
            if known.link(names[a.worker], names[b.worker]) is None or a in new or b in new
            for one in (a, b)
        }
        settled = self._wish.shares is not None or len(machines) < 2
        if settled or not (new or unlinked):
            return known
        watcher.gathering(f"a look at {_count(len(machines), 'machine')}: some seconds")
        try:
            found = self._probe(machines, new, unlinked, options, format)
        except (StepError, OSError, ValueError, MemoryError) as error:
            watcher.remark(f"(the machines could not be measured: {error})")
            return known
        known = known.joined(found)
        if path is not None:
            try:
                save_profile(path, known)
            except OSError as error:
                watcher.remark(f"(what was measured could not be kept: {error})")
        return known

    def _probe(
        self,
        machines: Sequence[Machine],
        new: Sequence[Machine],
        unlinked: set[str],
        options: EngineOptions,
        format: str,
    ) -> Profile:
        from bandweave.probing.links import QUICK_SIZES, Schedule
        from bandweave.probing.machine import quick_scope
        from bandweave.probing.session import probe_hosts

        found = Profile()
        for group, links in (
            (list(new), False),
            ([m for m in machines if m.worker in unlinked], True),
        ):
            if not group:
                continue
            placed = self._placed(group)
            part = probe_hosts(
                [format_address(one.address) for one in placed],
                self.membership.secret,
                isa=options.run.isa,
                scope=quick_scope(format, options.run.kv_format),
                schedule=Schedule(num_nodes=len(placed), sizes=QUICK_SIZES, rounds=3),
                links_only=links,
                machines_only=not links,
                launcher=MemberLauncher(self.membership, placed, encryption=options.encryption),
            )
            found = found.joined(part)
        return found

    # --- planning ---

    def _plan(
        self,
        folder: Folder,
        options: EngineOptions,
        context: int,
        machines: Sequence[Machine],
        profile: Profile,
        watcher: Watcher,
    ) -> Gathered | None:
        """None where the machines cannot hold the model."""
        placed = self._placed(machines)
        names = [machine.host for machine in machines]
        if len(set(names)) < len(names):
            names = [f"{one.host} ({self._name(one)})" for one in machines]
        stages = self._wish.stages or 1
        if self._wish.shares is not None:
            why = ("The shares are those of --shares.",)
            return self._gathered(
                options, placed, range(len(placed)), self._wish.shares, stages, why
            )

        def needs(shares: Sequence[Fraction], stages: int) -> list[int]:
            split = make_split(folder.spec, shares, stages=stages)
            asked = replace(_alone(options), shares=tuple(shares), stages=stages)
            return [need.total_bytes for need in node_needs(folder, split, asked, context)]

        def rooms(numbers: Sequence[int]) -> list[int]:
            return _rooms([machines[number] for number in numbers])

        plan = self._search(folder, options, placed, profile, needs, rooms, watcher.remark)
        if isinstance(plan, MeasuredPlan):
            best = plan.best
            why = tuple(reasons(plan, names))
            return self._gathered(options, placed, best.machines, best.shares, best.stages, why)
        equal = (Fraction(1),) * len(placed)
        shares = None
        if plan is None:
            shares = fitting_shares(
                rooms(range(len(placed))), lambda shares: needs(shares, stages), equal
            )
        if shares is None:
            return None
        why = ("Equal shares, as far as memory goes: the machines were not measured.",)
        if len(placed) == 1:
            why = ("It is the only machine.",)
        return self._gathered(options, placed, range(len(placed)), shares, stages, why)

    def _search(
        self,
        folder: Folder,
        options: EngineOptions,
        placed: Sequence[Placed],
        profile: Profile,
        needs: Callable[[Sequence[Fraction], int], Sequence[int]],
        rooms: Callable[[Sequence[int]], Sequence[int]],
        remark: Callable[[str], None],
    ) -> MeasuredPlan | str | None:
        """The planner's choice; None where nothing was measured, a word where nothing fits."""
        format = _measured_format(options)
        asked = replace(
            options,
            run=replace(options.run, weight_format=format),
            hosts=tuple(format_address(one.address) for one in placed),
            shares=(Fraction(1),) * len(placed),
            stages=1,
        )
        predictor = find_predictor(profile, asked)
        if predictor is None:
            return None

        def link(a: int, b: int) -> LinkProfile:
            assert predictor is not None
            return predictor.link(a, b)

        return (
            plan_measured(
                build_graph(folder.spec),
                levelled(predictor.nodes, asked.hosts, remark),
                link,
                replace(_TYPICAL, weight_format=format, kv_format=options.run.kv_format),
                rooms=rooms,
                needs=needs,
                stages=self._wish.stages,
                everybody=self._wish.machines is not None,
            )
            or "nothing fits"
        )

    def _gathered(
        self,
        options: EngineOptions,
        placed: Sequence[Placed],
        numbers: Sequence[int],
        shares: Sequence[Fraction],
        stages: int,
        why: tuple[str, ...],
    ) -> Gathered:
        chosen = [placed[number] for number in numbers]
        left_out = [one.machine.worker for one in placed if one not in chosen]
        return Gathered(
            options=replace(
                options,
                hosts=tuple(format_address(one.address) for one in chosen),
                shares=tuple(shares),
                stages=stages,
                fit=self._wish.shares is None,
            ),
            launcher=MemberLauncher(
                self.membership, chosen, left_out=left_out, encryption=options.encryption
            ),
            why=why,
            chosen=tuple(chosen),
        )

    def _placed(self, machines: Sequence[Machine]) -> list[Placed]:
        return [
            Placed(machine=machine, address=parse_address(self._name(machine)))
            for machine in machines
        ]

    def _name(self, machine: Machine) -> str:
        """The address at which the controller reaches it, which is its name in profiles."""
        return self._routes[machine.worker][0].address


def _for_all(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Those by which other machines come there too. Loopback is the quickest way to a worker of
    this machine, and no way from another one."""
    shared = [one for one in routes if not is_loopback(parse_address(one.address)[0])]
    return tuple(shared or routes)


def _alone(options: EngineOptions) -> EngineOptions:
    return replace(options, hosts=(), shares=(Fraction(1),), stages=1)


def _measured_format(options: EngineOptions) -> str:
    known = options.run.weight_format in PROBED_FORMATS
    return options.run.weight_format if known else _PLANNED_IN


def _knows(profile: Profile, name: str, machine: Machine, format: str) -> bool:
    """Whether a profile still speaks for a machine; another may have got its address."""
    known: MachineProfile | None = profile.machines.get(name)
    return (
        known is not None
        and not why_stale(name, known)
        and format in known.formats
        and known.processor == machine.processor
        and known.memory_bytes == machine.total_bytes
    )


def _rooms(machines: Sequence[Machine]) -> list[int]:
    """Bytes that each may take: workers of one host share its memory."""
    hosts = [machine.host_id or machine.worker for machine in machines]
    return [
        machine.memory_bytes // hosts.count(host)
        for machine, host in zip(machines, hosts, strict=True)
    ]


def _available(machines: Sequence[Machine]) -> int:
    return sum(_rooms(machines))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
