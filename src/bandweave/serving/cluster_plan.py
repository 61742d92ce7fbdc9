"""ClusterPlanner: which of the machines that joined a cluster hold a model, in how many groups, and
which are held ready.

A group is the business of ``group_planner``. Connects to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from bandweave.serving.cluster_problem import ClusterProblem, rooms_of
from bandweave.serving.group_planner import GroupPlanner, PlannedGroup, Remark
from bandweave.serving.machine_groups import held_ready, machine_groups
from bandweave.serving.prediction import find_predictor
from bandweave.serving.replica_count import copies_that_pay, copies_unknown, predicted_speed

_MOST_COPIES = 8  # that are tried where their number is left to us


class ClusterPlanner:
    """Machines are named by their numbers in the problem."""

    def __init__(self, problem: ClusterProblem, remark: Remark = lambda sentence: None) -> None:
        self._problem, self._remark = problem, remark
        self._wish = problem.wish
        self._planner = GroupPlanner(problem, remark)

    def plan(self) -> list[PlannedGroup] | None:
        """The groups; None where the machines cannot hold them."""
        wish = self._wish
        if wish.shares is not None:
            return self._as_told(wish.shares)
        return self._groups(wish.replicas) if wish.replicas else self._as_many_as_pay()

    # --- groups ---

    def _as_told(self, shares: tuple[Fraction, ...]) -> list[PlannedGroup]:
        """Neighbours, in groups as alike as can be, the first ones larger; the last machines are
        the spare ones."""
        count, nodes = self._wish.copies, len(shares)
        spare = range(nodes, len(self._problem.machines))
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
        numbers = range(len(self._problem.machines))
        one = self._groups(1)
        if len(numbers) - self._wish.spare < 2:
            return one
        if self._problem.predictor(numbers) is None:
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
        return plans[copies_that_pay(speeds, self._problem.options.run.streams, self._remark)]

    def _speed(self, groups: Sequence[PlannedGroup]) -> float | None:
        """Tokens a second of all groups together; None where one's is not known."""
        streams = max(1, math.ceil(self._problem.options.run.streams / len(groups)))
        problem, total = self._problem, 0.0
        for group in groups:
            asked = replace(
                problem.measured_options(group.machines), shares=group.shares, stages=group.stages
            )
            predictor = find_predictor(problem.profile, asked)
            speed = None
            if predictor is not None:
                speed = predicted_speed(problem.folder, predictor, asked, streams)
            if speed is None:
                return None
            total += speed
        return total

    def _groups(self, count: int) -> list[PlannedGroup] | None:
        """So many groups; who is left out of one anyway is held ready first."""
        spare = self._wish.spare
        if spare and self._wish.machines is None:
            groups = self._divided(range(len(self._problem.machines)), count)
            if groups is not None and sum(len(one.left_out) for one in groups) >= spare:
                return _ready(groups, spare)
        speeds, rooms = self._problem.speeds(), self._problem.rooms()
        for held in held_ready(speeds, rooms, spare):
            left = [one for one in range(len(self._problem.machines)) if one not in held]
            groups = self._divided(left, count)
            if groups is not None:
                return [
                    replace(one, spare=held[number::count]) for number, one in enumerate(groups)
                ]
        return None

    def _divided(self, numbers: Sequence[int], count: int) -> list[PlannedGroup] | None:
        """The division of these machines with most predicted tokens a second; where nobody knows
        that, the first that fits."""
        machines = [self._problem.machines[one] for one in numbers]
        # Workers of one host may be in several groups, and share its memory.
        rooms = dict(zip(numbers, rooms_of(machines), strict=True)) if count > 1 else None
        speeds, memory = self._problem.speeds(), self._problem.rooms()
        best: list[PlannedGroup] | None = None
        for parts in machine_groups(numbers, speeds, memory, count, self._wish.stages or 1):
            groups = [self._planner.group(part, rooms) for part in parts]
            fitting = [one for one in groups if one is not None]
            if len(fitting) < len(groups):
                continue
            if best is None or _together(fitting) > _together(best):
                best = fitting
        return best


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
