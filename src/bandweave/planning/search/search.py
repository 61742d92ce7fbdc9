"""Search: the best way to run a model on the machines there are. Pure; costs come from ``cost``.

Every set of machines is looked at (of equal ones, every number), and for every set the ways to cut
it into stages: one stage is a tensor split, one machine a stage a pipeline, all between is both.
The best of a set depends on that set alone, so one more machine can never make the answer worse,
as long as all sets are looked at: of very many a plain look chooses those that get a close one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import (
    PrefillCost,
    StepCost,
    decode_step,
    prefill,
)
from bandweave.planning.costs.deployment import Deployment, Network
from bandweave.planning.search.layout import (
    Layout,
    Question,
    Setup,
    deploy,
    fitted,
    start_layout,
    ways_to_cut,
    with_layers,
    with_share,
)
from bandweave.planning.search.machine_sets import machine_sets

OBJECTIVES = ("decode", "prefill", "request")

_MOST_SHARED = 16  # machines; of more one's share matters little
_REFINED = 2  # of a set's layouts, how many are improved step by step
_STEPS = 24
_FEW_SETS = 40  # up to so many sets all are looked at closely
_CLOSE = 6  # of more, so many for each plain way to cut them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way to run the model. ``seconds`` is what the objective counts; lower is better."""

    question: Question
    layout: Layout
    deployment: Deployment

    @cached_property
    def decode(self) -> StepCost:
        return decode_step(self.deployment, self.question.decoding)

    @cached_property
    def prefill(self) -> PrefillCost:
        return prefill(self.deployment, self.question.reading)

    @cached_property
    def seconds(self) -> float:
        if self.question.objective == "prefill":
            return self.prefill.total_s
        token = self.decode.period_s / self.decode.streams
        if self.question.objective == "decode":
            return token
        return self.prefill.total_s + self.question.answer * token

    @property
    def kind(self) -> str:
        return self.layout.kind

    @property
    def machines(self) -> tuple[int, ...]:
        return self.layout.machines

    @property
    def link(self) -> str:
        """The name of its default link; empty on one machine."""
        return self.deployment.network.default.name if len(self.machines) > 1 else ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``plans``: the best of every kind that fits, best first. ``single``: the best machine alone,
    None where none holds the model. ``with_all``: the best plan that uses every machine."""

    question: Question
    setup: Setup
    plans: tuple[Plan, ...]
    single: Plan | None
    with_all: Plan | None

    @property
    def best(self) -> Plan:
        return self.plans[0]

    @property
    def runner_up(self) -> Plan | None:
        """The best plan of another kind, or on other machines."""
        return self.plans[1] if len(self.plans) > 1 else None

    @property
    def left_out(self) -> tuple[int, ...]:
        used = set(self.best.machines)
        return tuple(node for node in range(len(self.setup.nodes)) if node not in used)


def find_plans(
    question: Question, setup: Setup, among: Iterable[tuple[int, ...]] | None = None
) -> Answer | None:
    """The best plan and the best of every other kind; None where nothing fits. ``among``: only
    these sets of machines."""
    assert question.objective in OBJECTIVES, question.objective
    best: dict[tuple[str, bool], Plan] = {}
    with_all: Plan | None = None
    sets = list(machine_sets(question, setup) if among is None else among)
    if among is None and len(sets) > _FEW_SETS:
        found = find_plans(question, setup, _shortlisted(question, setup, sets))
        if found is not None:
            return found
    for machines in sets:
        for plan in plans_on(question, setup, machines):
            key = (plan.kind, plan.layout.whole_experts)
            if key not in best or plan.seconds < best[key].seconds:
                best[key] = plan
            if len(machines) == len(setup.nodes) and (
                with_all is None or plan.seconds < with_all.seconds
            ):
                with_all = plan
    if not best:
        return None
    # Of equally quick plans the simpler one: fewer machines, then fewer stages.
    plans = sorted(best.values(), key=lambda p: (p.seconds, len(p.machines), len(p.layout.stages)))
    return Answer(
        question=question,
        setup=setup,
        plans=tuple(plans),
        single=best.get(("one", False)),
        with_all=with_all,
    )


def _shortlisted(
    question: Question, setup: Setup, sets: Sequence[tuple[int, ...]]
) -> Iterator[tuple[int, ...]]:
    """Of many sets those that are worth a close look: each machine alone, all together, and for
    each of three plain ways to cut a set the sets that are quickest so. A close look at a set costs
    a hundred evaluations, a plain one three."""
    ranked: list[list[tuple[float, int]]] = [[], [], []]
    for number, machines in enumerate(sets):
        for times, seconds in zip(ranked, _plainly(question, setup, machines), strict=True):
            times.append((seconds, number))
    chosen = {
        number for number, machines in enumerate(sets) if len(machines) in (1, len(setup.nodes))
    }
    for times in ranked:
        chosen |= {number for seconds, number in sorted(times)[:_CLOSE] if seconds < math.inf}
    return (sets[number] for number in sorted(chosen))


def _plainly(question: Question, setup: Setup, machines: tuple[int, ...]) -> list[float]:
    """What the objective counts of a set cut into one stage, into a stage for each kind of machine
    and into a stage for each machine, in proportion to bandwidth; infinite where that is not to
    be had."""
    name = question.weights.name
    reads = [node.weight_rate(name, "likely") for node in setup.nodes]
    alike = [
        tuple(group)
        for _, group in itertools.groupby(machines, lambda node: setup.nodes[node].name)
    ]
    ways = ((machines,), tuple(alike), tuple((node,) for node in machines))
    result = []
    for stages in ways:
        times = [math.inf]
        for network in setup.networks:
            if not (setup.allows(question.model, stages) and _joined(network, stages)):
                continue
            layout = _with_equal_shares(setup, start_layout(question, stages, reads))
            layout = layout and fitted(question, setup, network, layout)
            if layout is not None:
                times.append(evaluate(question, setup, network, layout).seconds)
        result.append(min(times))
    return result


def plans_on(question: Question, setup: Setup, machines: tuple[int, ...]) -> list[Plan]:
    """The best plans, one a kind, that use all of these machines."""
    networks = setup.networks if len(machines) > 1 else setup.networks[:1]
    result: dict[str, tuple[Network, Plan]] = {}
    for network in networks:
        found: list[Plan] = []
        for layout in _start_layouts(question, setup, network, machines):
            layout_that_fits = fitted(question, setup, network, layout)
            if layout_that_fits is not None:
                found.append(evaluate(question, setup, network, layout_that_fits))
        by_kind: dict[str, list[Plan]] = {}
        for plan in sorted(found, key=lambda plan: plan.seconds):
            by_kind.setdefault(plan.kind, []).append(plan)
        for plans in by_kind.values():
            for start in plans[:_REFINED]:
                few = len(machines) <= _MOST_SHARED
                plan = _refined(question, setup, network, start) if few else start
                if plan.kind not in result or plan.seconds < result[plan.kind][1].seconds:
                    result[plan.kind] = (network, plan)
    plans = [plan for _, plan in result.values()]
    # Experts given out whole instead of cut: tried on the best split that the set has.
    splits = [found for found in result.values() if found[1].kind in ("tensor", "mixed")]
    if splits and setup.whole_experts and question.model.has_experts:
        network, plan = min(splits, key=lambda found: found[1].seconds)
        layout = fitted(question, setup, network, replace(plan.layout, whole_experts=True))
        if layout is not None:
            plans.append(evaluate(question, setup, network, layout))
    return plans


def evaluate(question: Question, setup: Setup, network: Network, layout: Layout) -> Plan:
    """The plan of a layout; its costs are computed when they are asked for."""
    deployment = deploy(question, setup, network, layout)
    return Plan(question=question, layout=layout, deployment=deployment)


def _start_layouts(
    question: Question, setup: Setup, network: Network, machines: tuple[int, ...]
) -> Iterator[Layout]:
    nodes = [setup.nodes[node] for node in machines]
    alike = not network.links and all(node == nodes[0] for node in nodes)
    name = question.weights.name
    reads = [node.weight_rate(name, "likely") for node in setup.nodes]
    computes = [node.compute_rate(name, 512, "likely") for node in setup.nodes]
    weightings: list[Sequence[float]] = [[1.0] * len(setup.nodes)]
    if not alike:
        weightings += [reads, computes, [float(node.memory_bytes) for node in setup.nodes]]
    seen = set()
    for order in _orders(network, machines):
        for stages in ways_to_cut(order, alike):
            if not (setup.allows(question.model, stages) and _joined(network, stages)):
                continue
            for weights in weightings:
                layout = _with_equal_shares(setup, start_layout(question, stages, weights))
                if layout is not None and layout not in seen:
                    seen.add(layout)
                    yield layout


def _with_equal_shares(setup: Setup, layout: Layout | None) -> Layout | None:
    """The layout as engines have it that divide a stage equally, if this is one of them."""
    if layout is None or not setup.rules.equal:
        return layout
    return replace(layout, shares=tuple((1.0,) * len(stage) for stage in layout.stages))


def _joined(network: Network, stages: Sequence[Sequence[int]]) -> bool:
    """Whether the machines of a stage can all have a cable to each other."""
    most = network.most_joined
    return most is None or bool(network.links) or all(len(stage) <= most for stage in stages)


def _orders(network: Network, machines: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders in which neighbours are well linked: from each machine on to the nearest next."""
    if not network.links:
        yield machines
        return
    orders = {}
    for start in machines[:8]:
        order, left = [start], [node for node in machines if node != start]
        while left:
            last = order[-1]
            nearest = min(left, key=lambda node: (network.link(last, node).latency_s.likely, node))
            order.append(nearest)
            left.remove(nearest)
        orders[tuple(order)] = None
    yield from orders


def _refined(question: Question, setup: Setup, network: Network, plan: Plan) -> Plan:
    """Improved by moving layers and shares until nothing that is tried helps."""
    step = 4
    for _ in range(_STEPS):
        better = None
        for layout in _neighbours(plan, step, shares_move=not setup.rules.equal):
            deployment = deploy(question, setup, network, layout)
            if not capacity(deployment, question.decoding).fits:
                continue
            candidate = evaluate(question, setup, network, layout)
            if candidate.seconds < plan.seconds * (1 - 1e-6):
                better = candidate
                break
        if better is not None:
            plan = better
        elif step == 1:
            break
        else:
            step //= 2
    return plan


def _neighbours(plan: Plan, step: int, *, shares_move: bool) -> Iterator[Layout]:
    layout, stages = plan.layout, plan.deployment.stages
    busy = plan.decode.busy_s
    times = [max(busy[node] for node in stage.nodes) for stage in stages]
    each = [time / len(stage.layers) for time, stage in zip(times, stages, strict=True)]
    if len(stages) > 1:
        numbers = range(len(stages))
        moves = [
            (max(numbers, key=lambda i: values[i]), min(numbers, key=lambda i: values[i]))
            for values in (each, times)
        ]
        for source, target in dict.fromkeys(moves):
            if source != target:
                yield from _some(with_layers(layout, source, target, step))
    for number, stage in enumerate(stages if shares_move else ()):
        own = [busy[node] for node in stage.nodes]
        source = max(range(len(own)), key=lambda i: own[i])
        target = min(range(len(own)), key=lambda i: own[i])
        if own[source] > own[target] * 1.01:
            yield from _some(with_share(layout, number, source, target, step / 64))


def _some(layout: Layout | None) -> Iterator[Layout]:
    if layout is not None:
        yield layout
