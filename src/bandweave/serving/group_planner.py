"""GroupPlanner: which of some machines hold all of a model together, in which shares and stages.

By what was measured of the machines, else in equal shares as far as memory goes. Connects to
nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.models.registry import build_graph
from bandweave.planning.profile.prediction import Load
from bandweave.planning.search.fit import fitting_shares
from bandweave.planning.search.measured import (
    MeasuredPlan,
    layout_reasons,
    left_out_reason,
    plan_measured,
)
from bandweave.serving.cluster_problem import ClusterProblem, rooms_of
from bandweave.serving.prediction import Predictor, levelled

_TYPICAL = Load(prompt_tokens=256, new_tokens=128)  # what a split is chosen for
_LOOKS, _FEW_LOOKS = 6, 2  # at the layouts that promise most

Remark = Callable[[str], None]


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


class GroupPlanner:
    """Machines are named by their numbers in the problem."""

    def __init__(self, problem: ClusterProblem, remark: Remark = lambda sentence: None) -> None:
        self._problem, self._remark = problem, remark

    def layout(self, stages: int | None) -> PlannedGroup | None:
        """All of the machines as one group, by what was measured; None where that is too little,
        or does not fit. Answers may wait for it."""
        numbers = range(len(self._problem.machines))
        predictor = self._problem.predictor(numbers)
        if predictor is None:
            return None
        return self._quickest(predictor, numbers, None, stages, everybody=True, looks=_FEW_LOOKS)

    def group(
        self, numbers: Sequence[int], shared: Mapping[int, int] | None
    ) -> PlannedGroup | None:
        """The group of these machines; None where they cannot hold the model. ``shared``: bytes of
        each machine, where others are on its host; None where all of those are among these
        machines."""
        problem, wish = self._problem, self._problem.wish
        predictor = problem.predictor(numbers)
        if predictor is not None:
            everybody = wish.machines is not None
            return self._quickest(predictor, numbers, shared, wish.stages, everybody=everybody)
        stages = wish.stages or 1
        equal = (Fraction(1),) * len(numbers)
        rooms = self._rooms(numbers, shared)
        shares = fitting_shares(rooms, lambda shares: problem.needs(shares, stages), equal)
        if shares is None:
            return None
        why = "Equal shares, as far as memory goes: the machines were not measured."
        if len(problem.machines) == 1:
            why = "It is the only machine."
        return PlannedGroup(machines=tuple(numbers), shares=shares, stages=stages, why=(why,))

    def _quickest(
        self,
        predictor: Predictor,
        numbers: Sequence[int],
        shared: Mapping[int, int] | None,
        stages: int | None,
        *,
        everybody: bool,
        looks: int = _LOOKS,
    ) -> PlannedGroup | None:
        """As the planner chooses; None where nothing fits. Who is left out leaves its memory to
        others of its host, where that is not ``shared`` with another group."""
        problem, asked = self._problem, self._problem.measured_options(numbers)

        def rooms_for(chosen: Sequence[int]) -> list[int]:
            return self._rooms([numbers[one] for one in chosen], shared)

        load = replace(
            _TYPICAL,
            weight_format=asked.run.weight_format,
            kv_format=asked.run.kv_format,
        )
        found = plan_measured(
            build_graph(problem.folder.spec),
            levelled(predictor.nodes, asked.hosts, self._remark),
            predictor.link,
            load,
            rooms=rooms_for,
            needs=problem.needs,
            stages=stages,
            everybody=everybody,
            looks=looks,
        )
        return None if found is None else self._measured(numbers, found)

    def _rooms(self, numbers: Sequence[int], shared: Mapping[int, int] | None) -> list[int]:
        """Bytes that each of them may take."""
        if shared is None:
            return rooms_of([self._problem.machines[one] for one in numbers])
        return [shared[one] for one in numbers]

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
            why=tuple(layout_reasons(found, [self._problem.label(one) for one in numbers])),
            tokens_per_s=best.tokens_per_s,
        )
