"""ClusterPlan: which of the machines that joined a cluster hold a model, in how many groups, in
which shares and stages, and which are held ready.

By what was measured of the machines, else in equal shares as far as memory goes. Knows a model's
needs and machines' accounts of themselves; connects to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.formats.names import PROBED_FORMATS
from bandweave.handshake.encryption import AUTO
from bandweave.membership.messages import Machine
from bandweave.models.registry import build_graph
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.prediction import Load
from bandweave.planning.profile.profile import Profile
from bandweave.planning.search.fit import fitting_shares
from bandweave.planning.search.measured import (
    MeasuredPlan,
    layout_reasons,
    left_out_reason,
    plan_measured,
)
from bandweave.programs.split import make_split
from bandweave.serving.machine_groups import held_ready, machine_groups
from bandweave.serving.prediction import find_predictor, levelled
from bandweave.serving.replica_count import copies_that_pay, copies_unknown, predicted_speed

_TYPICAL = Load(prompt_tokens=256, new_tokens=128)  # what a split is chosen for
_PLANNED_IN = "q4"  # where blocks of a GGUF file stay as they are: of all, the nearest to most
_LOOKS, _FEW_LOOKS = 6, 2  # at the layouts that promise most
_MOST_COPIES = 8  # that are tried where their number is left to us

Remark = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user has settled: how many ``machines`` hold the model, their ``shares``, how many
    ``stages``; None for what the planner decides. ``replicas``: groups that each hold all of the
    model, 0 for as many as pay; ``spare`` machines are held ready beside those; ``encryption`` of
    what crosses between machines."""

    machines: int | None = None
    shares: tuple[Fraction, ...] | None = None
    stages: int | None = None
    replicas: int = 1
    spare: int = 0
    encryption: str = AUTO

    def __post_init__(self) -> None:
        """``ValueError`` for what no number of machines could mend."""
        needed = self.copies * (self.stages or 1)
        if self.machines is not None and self.machines < needed:
            copies = "1 copy" if self.copies == 1 else f"{self.copies} copies"
            stages = f" in {self.stages} stages" if (self.stages or 1) > 1 else ""
            verb = "needs" if self.copies == 1 else "need"
            raise ValueError(
                f"{copies} of the model{stages} {verb} {needed} machines at least, and there are "
                f"to be {self.machines}; give more --nodes or --shares, or fewer --replicas or "
                "--stages"
            )

    @property
    def copies(self) -> int:
        """Of the model, at least."""
        return max(1, self.replicas)

    @property
    def all_machines(self) -> int | None:
        """The spare ones too; None for any number."""
        return None if self.machines is None else self.machines + self.spare

    @property
    def least_machines(self) -> int:
        return self.all_machines or self.copies * (self.stages or 1) + self.spare


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """Machines, by their numbers, that hold all of a model: one node each, in order. ``spare`` ones
    are held ready for them; those that are ``left_out`` would slow them down, or are of no use, as
    ``reason`` says. ``why`` so, in sentences."""

    machines: tuple[int, ...]
    shares: tuple[Fraction, ...]
    stages: int
    spare: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    reason: str = ""
    why: tuple[str, ...] = ()
    tokens_per_s: float | None = None  # of one stream, as predicted


class ClusterPlanner:
    """For some machines. ``names``: the addresses by which ``profile`` knows them."""

    def __init__(
        self,
        folder: Folder,
        options: EngineOptions,
        context: int,
        wish: Wish,
        machines: Sequence[Machine],
        names: Sequence[str],
        profile: Profile,
        remark: Remark = lambda sentence: None,
    ) -> None:
        self._folder, self._options, self._context = folder, options, context
        self._wish, self._machines, self._names = wish, machines, names
        self._profile, self._remark = profile, remark
        hosts = [machine.host for machine in machines]
        self._people = [
            f"{host} ({name})" if len(set(hosts)) < len(hosts) else host
            for host, name in zip(hosts, names, strict=True)
        ]

    def plan(self) -> list[PlannedGroup] | None:
        """The groups; None where the machines cannot hold them."""
        wish = self._wish
        if wish.shares is not None:
            return self._as_told(wish.shares)
        return self._groups(wish.replicas) if wish.replicas else self._as_many_as_pay()

    def layout(self, stages: int | None) -> PlannedGroup | None:
        """All of the machines as one group, by what was measured; None where that is too little,
        or does not fit. Answers may wait for it."""
        numbers, rooms = range(len(self._machines)), rooms_of(self._machines)
        found = self._search(numbers, rooms, stages, everybody=True, looks=_FEW_LOOKS)
        return self._measured(numbers, found) if isinstance(found, MeasuredPlan) else None

    # --- groups ---

    def _as_told(self, shares: tuple[Fraction, ...]) -> list[PlannedGroup]:
        """Neighbours, in groups as alike as can be, the first ones larger; the last machines are
        the spare ones."""
        count, nodes = self._wish.copies, len(shares)
        spare = range(nodes, len(self._machines))
        groups, first = [], 0
        for number in range(count):
            size = nodes // count + (number < nodes % count)
            groups.append(
                PlannedGroup(
                    machines=tuple(range(first, first + size)),
                    shares=shares[first : first + size],
                    stages=self._wish.stages or 1,
                    spare=tuple(spare[number::count]),
                    why=("The shares are those of --shares.",),
                )
            )
            first += size
        return groups

    def _as_many_as_pay(self) -> list[PlannedGroup] | None:
        """As many copies as write most tokens a second to as many streams as there is room for."""
        numbers = range(len(self._machines))
        one = self._groups(1)
        if len(numbers) - self._wish.spare < 2:
            return one
        if find_predictor(self._profile, self._asked(numbers)) is None:
            self._remark(copies_unknown())
            return one
        plans = {1: one}
        most = (len(numbers) - self._wish.spare) // (self._wish.stages or 1)
        for count in range(2, min(most, _MOST_COPIES) + 1):
            plans[count] = self._groups(count)
        speeds = {
            count: speed
            for count, groups in plans.items()
            if groups is not None and (speed := self._speed(groups)) is not None
        }
        return plans[copies_that_pay(speeds, self._options.run.streams, self._remark)]

    def _speed(self, groups: Sequence[PlannedGroup]) -> float | None:
        """Tokens a second of all groups together; None where one's is not known."""
        streams = max(1, math.ceil(self._options.run.streams / len(groups)))
        total = 0.0
        for group in groups:
            asked = replace(self._asked(group.machines), shares=group.shares, stages=group.stages)
            predictor = find_predictor(self._profile, asked)
            speed = None
            if predictor is not None:
                speed = predicted_speed(self._folder, predictor, asked, streams)
            if speed is None:
                return None
            total += speed
        return total

    def _groups(self, count: int) -> list[PlannedGroup] | None:
        """So many groups; who is left out of one anyway is held ready first."""
        spare = self._wish.spare
        if spare and self._wish.machines is None:
            groups = self._divided(range(len(self._machines)), count)
            if groups is not None and sum(len(one.left_out) for one in groups) >= spare:
                return _ready(groups, spare)
        speeds, rooms = self._speeds(), rooms_of(self._machines)
        for held in held_ready(speeds, rooms, spare):
            left = [one for one in range(len(self._machines)) if one not in held]
            groups = self._divided(left, count)
            if groups is not None:
                return [
                    replace(one, spare=held[number::count]) for number, one in enumerate(groups)
                ]
        return None

    def _divided(self, numbers: Sequence[int], count: int) -> list[PlannedGroup] | None:
        """The division of these machines with most predicted tokens a second; where nobody knows
        that, the first that fits."""
        machines = [self._machines[one] for one in numbers]
        # Workers of one host may be in several groups, and share its memory.
        rooms = dict(zip(numbers, rooms_of(machines), strict=True)) if count > 1 else None
        speeds, memory = self._speeds(), rooms_of(self._machines)
        best: list[PlannedGroup] | None = None
        for parts in machine_groups(numbers, speeds, memory, count, self._wish.stages or 1):
            groups = [self._group(part, rooms) for part in parts]
            fitting = [one for one in groups if one is not None]
            if len(fitting) < len(groups):
                continue
            if best is None or _together(fitting) > _together(best):
                best = fitting
        return best

    # --- one group ---

    def _group(self, numbers: Sequence[int], shared: dict[int, int] | None) -> PlannedGroup | None:
        """``shared``: bytes of each machine, where others are on its host; None where all of those
        are among these machines."""
        machines = [self._machines[one] for one in numbers]
        rooms = rooms_of(machines) if shared is None else [shared[one] for one in numbers]
        found = self._search(
            numbers,
            rooms,
            self._wish.stages,
            everybody=self._wish.machines is not None,
            alone=shared is None,
        )
        if isinstance(found, MeasuredPlan):
            return self._measured(numbers, found)
        if found is not None:
            return None
        stages = self._wish.stages or 1
        equal = (Fraction(1),) * len(numbers)
        shares = fitting_shares(rooms, lambda shares: self._needs(shares, stages), equal)
        if shares is None:
            return None
        why = "Equal shares, as far as memory goes: the machines were not measured."
        if len(self._machines) == 1:
            why = "It is the only machine."
        return PlannedGroup(machines=tuple(numbers), shares=shares, stages=stages, why=(why,))

    def _measured(self, numbers: Sequence[int], found: MeasuredPlan) -> PlannedGroup:
        best = found.best
        machines = tuple(numbers[one] for one in best.machines)
        left_out = tuple(one for one in numbers if one not in machines)
        return PlannedGroup(
            machines=machines,
            shares=best.shares,
            stages=best.stages,
            left_out=left_out,
            reason=left_out_reason(found) if left_out else "",
            why=tuple(layout_reasons(found, [self._people[one] for one in numbers])),
            tokens_per_s=best.tokens_per_s,
        )

    def _search(
        self,
        numbers: Sequence[int],
        rooms: Sequence[int],
        stages: int | None,
        *,
        everybody: bool,
        alone: bool = True,
        looks: int = _LOOKS,
    ) -> MeasuredPlan | str | None:
        """The planner's choice; None where nothing was measured, a word where nothing fits.
        ``alone``: whoever is left out leaves its memory to others of its host."""
        asked = self._asked(numbers)
        predictor = find_predictor(self._profile, asked)
        if predictor is None:
            return None

        def link(a: int, b: int) -> LinkProfile:
            assert predictor is not None
            return predictor.link(a, b)

        def rooms_for(chosen: Sequence[int]) -> list[int]:
            if alone:
                return rooms_of([self._machines[numbers[one]] for one in chosen])
            return [rooms[one] for one in chosen]

        load = replace(
            _TYPICAL,
            weight_format=asked.run.weight_format,
            kv_format=self._options.run.kv_format,
        )
        return (
            plan_measured(
                build_graph(self._folder.spec),
                levelled(predictor.nodes, asked.hosts, self._remark),
                link,
                load,
                rooms=rooms_for,
                needs=self._needs,
                stages=stages,
                everybody=everybody,
                looks=looks,
            )
            or "nothing fits"
        )

    def _needs(self, shares: Sequence[Fraction], stages: int) -> list[int]:
        split = make_split(self._folder.spec, shares, stages=stages)
        asked = replace(one_node(self._options), shares=tuple(shares), stages=stages)
        needs = node_needs(self._folder, split, asked, self._context)
        return [need.total_bytes for need in needs]

    def _asked(self, numbers: Sequence[int]) -> EngineOptions:
        """Options for these machines in a format that is measured."""
        return replace(
            self._options,
            run=replace(self._options.run, weight_format=measured_format(self._options)),
            hosts=tuple(self._names[one] for one in numbers),
            shares=(Fraction(1),) * len(numbers),
            stages=1,
        )

    def _speeds(self) -> list[float] | None:
        """Bytes of memory a second that each machine reads; None where one was not measured."""
        predictor = find_predictor(self._profile, self._asked(range(len(self._machines))))
        if predictor is None:
            return None
        return [one.machine.read_bytes_per_s(one.threads) for one in predictor.nodes]


def one_node(options: EngineOptions) -> EngineOptions:
    """The options of one node of this machine."""
    return replace(options, hosts=(), shares=(Fraction(1),), stages=1)


def measured_format(options: EngineOptions) -> str:
    """The weight format in which machines are measured for these options."""
    known = options.run.weight_format in PROBED_FORMATS
    return options.run.weight_format if known else _PLANNED_IN


def rooms_of(machines: Sequence[Machine]) -> list[int]:
    """Bytes that each may take: workers of one host share its memory."""
    hosts = [machine.host_id or machine.worker for machine in machines]
    return [
        machine.memory_bytes // hosts.count(host)
        for machine, host in zip(machines, hosts, strict=True)
    ]


def _ready(groups: Sequence[PlannedGroup], spare: int) -> list[PlannedGroup]:
    """So many of those that are left out are spare ones."""
    result = []
    for group in groups:
        taken, rest = group.left_out[:spare], group.left_out[spare:]
        spare -= len(taken)
        result.append(
            replace(group, spare=taken, left_out=rest, reason=group.reason if rest else "")
        )
    return result


def _together(groups: Sequence[PlannedGroup]) -> float:
    """Tokens a second, one stream in each; nothing where that is not known."""
    return sum(one.tokens_per_s or 0.0 for one in groups)
