"""Which of the measured machines hold a model, in which shares and stages: the quickest that fits.

Pure functions over profiles. Few machines are tried in every combination, many by leaving out the
slowest ones. Knows no files and no processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations

from bandweave.models.graph import Graph
from bandweave.planning.profile.engine_cost import Links, predict_step
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.prediction import Load, choose_shares, decode_step
from bandweave.planning.search.fit import fitting_shares
from bandweave.programs.split import make_split

_ALL_COMBINATIONS = 5  # machines at most of which every combination is tried
_REFINED = 6  # layouts whose shares are searched for
_MOST_STAGES = 8

Shares = tuple[Fraction, ...]
# Bytes that the machines (by number) have, and need in such shares and stages.
Rooms = Callable[[Sequence[int]], Sequence[int]]
Needs = Callable[[Sequence[Fraction], int], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Some of the machines, by number, in ``stages``; the seconds of a token as predicted."""

    machines: tuple[int, ...]
    shares: Shares
    stages: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return 1 / self.seconds


@dataclass(frozen=True, kw_only=True)
class MeasuredPlan:
    """The quickest layout that fits; the quickest of another kind; and the one with all machines,
    None where that is one of these or none."""

    best: Layout
    second: Layout | None = None
    everybody: Layout | None = None


def plan_measured(
    graph: Graph,
    nodes: Sequence[EngineNode],
    links: Links,
    load: Load,
    *,
    rooms: Rooms,
    needs: Needs,
    stages: int | None = None,
    everybody: bool = False,
    looks: int = _REFINED,
) -> MeasuredPlan | None:
    """The quickest layout for one stream; ``stages`` and ``everybody``: what is settled already;
    ``looks``: at how many of the layouts that promise most. None where no layout fits the machines'
    memories."""
    found = _Layouts(graph, nodes, links, load, rooms, needs)
    rough = sorted(
        (layout for layout in found.rough(stages, everybody)), key=lambda layout: layout.seconds
    )
    fitting: list[Layout] = []
    for layout in rough:
        # Shares that are searched for gain something on equal ones, but never so much as a half.
        if len(fitting) >= looks or (fitting and layout.seconds > 2 * fitting[0].seconds):
            break
        refined = found.refined(layout)
        if refined is not None:
            fitting.append(refined)
    if not fitting:
        return None
    best = min(fitting, key=lambda layout: (layout.seconds, len(layout.machines)))
    others = [one for one in fitting if (one.machines, one.stages) != (best.machines, best.stages)]
    second = min(others, key=lambda layout: layout.seconds, default=None)
    whole = None
    if len(best.machines) < len(nodes):
        known = [one for one in fitting if len(one.machines) == len(nodes)]
        if not known:
            of_all = [one for one in rough if len(one.machines) == len(nodes)]
            known = [one for one in map(found.refined, of_all[:2]) if one is not None]
        whole = min(known, key=lambda layout: layout.seconds, default=None)
    return MeasuredPlan(best=best, second=second, everybody=whole)


class _Layouts:
    def __init__(
        self,
        graph: Graph,
        nodes: Sequence[EngineNode],
        links: Links,
        load: Load,
        rooms: Rooms,
        needs: Needs,
    ) -> None:
        self._graph, self._nodes, self._links, self._load = graph, nodes, links, load
        self._rooms, self._needs = rooms, needs

    def rough(self, stages: int | None, everybody: bool) -> Iterator[Layout]:
        """In shares by the machines' speeds, whether they fit or not."""
        for machines in self._groups(everybody):
            speeds = tuple(Fraction(self._speed(one)).limit_denominator(1000) for one in machines)
            whole = sum(speeds)
            shares = tuple(speed / whole for speed in speeds)
            most = min(len(machines), _MOST_STAGES)
            for count in [stages] if stages is not None else range(1, most + 1):
                if count <= len(machines):
                    layout = self._timed(machines, shares, count)
                    if layout is not None:
                        yield layout

    def refined(self, layout: Layout) -> Layout | None:
        """In the quickest shares that fit; None where none do."""
        machines, count = layout.machines, layout.stages
        members = [self._nodes[one] for one in machines]

        def link(a: int, b: int):  # noqa: ANN202
            return self._links(machines[a], machines[b])

        shares = layout.shares
        if len(members) > 1:
            try:
                shares = choose_shares(self._graph, members, link, self._load, stages=count).shares
            except ValueError:  # not in equal shares, with which it begins
                shares = layout.shares
        fitting = fitting_shares(
            self._rooms(machines), lambda shares: self._needs(shares, count), shares
        )
        return None if fitting is None else self._timed(machines, fitting, count)

    def _groups(self, everybody: bool) -> Iterator[tuple[int, ...]]:
        numbers = range(len(self._nodes))
        if everybody:
            yield tuple(numbers)
        elif len(numbers) <= _ALL_COMBINATIONS:
            for count in numbers:
                yield from combinations(numbers, count + 1)
        else:
            order = sorted(numbers, key=self._speed)  # the slowest leave first
            for left_out in numbers:
                yield tuple(sorted(order[left_out:]))

    def _speed(self, machine: int) -> float:
        """Gigabytes of weights a second, while decoding."""
        node = self._nodes[machine]
        rate = node.machine.seconds_per_byte(
            self._load.weight_format, on_grid=False, rows=1, threads=node.threads
        )
        return 1e-9 / rate

    def _timed(self, machines: tuple[int, ...], shares: Shares, count: int) -> Layout | None:
        try:
            split = make_split(self._graph.spec, shares, stages=count)
        except ValueError:  # a node would own nothing
            return None
        bill = predict_step(
            self._graph,
            split,
            [self._nodes[one] for one in machines],
            lambda a, b: self._links(machines[a], machines[b]),
            decode_step(replace(self._load, streams=1)),
            weight_format=self._load.weight_format,
            kv_format=self._load.kv_format,
        )
        return Layout(machines=machines, shares=shares, stages=count, seconds=bill.wall)


def reasons(plan: MeasuredPlan, names: Sequence[str]) -> list[str]:
    """Why this plan, in sentences."""
    sentences = layout_reasons(plan, names)
    left = [one for one in range(len(names)) if one not in plan.best.machines]
    if left:
        verb = "is" if len(left) == 1 else "are"
        sentences.append(f"{_listed(left, names)} {verb} left out: {left_out_reason(plan)}.")
    return sentences


def left_out_reason(plan: MeasuredPlan) -> str:
    """Why machines are left out of it, as a clause."""
    if plan.everybody is None:
        return "together they hold less than the model needs"
    return f"with all machines it would be {plan.everybody.tokens_per_s:.3g} tokens/s"


def layout_reasons(plan: MeasuredPlan, names: Sequence[str]) -> list[str]:
    """Why this layout, without a word on who is left out."""
    best = plan.best
    sentences = [f"{phrase(best)}: {best.tokens_per_s:.3g} tokens/s predicted for one stream."]
    if plan.second is not None:
        second = plan.second
        who = "" if second.machines == best.machines else f" ({_listed(second.machines, names)})"
        sentences.append(f"Second: {phrase(second)}{who}, {second.tokens_per_s:.3g} tokens/s.")
    return sentences


def phrase(layout: Layout) -> str:
    """``"tensor split over 2 machines, shares 3:2"``."""
    count = len(layout.machines)
    if count == 1:
        return "one machine alone"
    kind = f"tensor split over {count} machines"
    if layout.stages == count:
        kind = f"{count} stages, one machine each"
    elif layout.stages > 1:
        kind = f"{layout.stages} stages, {count} machines"
    whole = sum(layout.shares)
    parts = " + ".join(f"{float(100 * share / whole):.0f}%" for share in layout.shares)
    return f"{kind}, {parts}"


def _listed(machines: Sequence[int], names: Sequence[str]) -> str:
    return " and ".join(names[one] for one in machines)
