"""Layout: which machines form which stages, who gets how much, and how that is made to fit.

A layout is a candidate of the search: a deployment that may still change. Pure. Knows memory and
units, and nothing of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.models.model_shape import ModelShape
from bandweave.planning.costs.beside import placed
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.deployment import Deployment, EngineTraits, Network, Stage, Workload
from bandweave.planning.costs.software import EVERY_SPLIT, SplitRules
from bandweave.planning.costs.weight_bytes import WeightBytes
from bandweave.planning.machines.rates import LinkRates, NodeRates
from bandweave.programs.split import apportion
from bandweave.ranges import Range

_PARTS = 512  # shares are multiples of a stage's 1/512
_REPAIRS = 48
_ALL_COMPOSITIONS = 6  # up to so many machines every way to cut them into stages is looked at

_FEW = 16


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be placed: a model in a format, and the work that it shall do.

    ``objective``: ``"decode"`` (seconds for a token), ``"prefill"`` (seconds for the prompt) or
    ``"request"`` (a prompt of ``prompt`` tokens and an answer of ``answer``). ``context`` tokens
    lie in every stream's cache while decoding.
    """

    model: ModelShape
    weights: WeightBytes
    context: int = 4096
    streams: int = 1
    prompt: int = 1024
    answer: int = 512
    objective: str = "decode"
    kv_bytes_per_element: float = 2.0

    @property
    def decoding(self) -> Workload:
        return Workload(context=self.context, streams=self.streams, prompt=0)

    @property
    def reading(self) -> Workload:
        return Workload(context=0, streams=1, prompt=self.prompt)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What there is: machines, ways to link them (the quickest is chosen), the engine's traits."""

    nodes: tuple[NodeRates, ...]
    networks: tuple[Network, ...]
    engine: EngineTraits
    whole_experts: bool = True  # whether the engine can give experts out whole
    rules: SplitRules = EVERY_SPLIT
    kinds: tuple[str, ...] = ()  # by node; "": the engine does not run there. None given: all alike
    titles: tuple[str, ...] = ()  # names of the nodes' hardware, where like and unlike matter

    def with_more(self, node: NodeRates, count: int = 1) -> Setup:
        """With so many more nodes like one of them."""
        index = self.nodes.index(node)
        kinds = (*self.kinds, *[self.kinds[index]] * count) if self.kinds else ()
        titles = (*self.titles, *[self.titles[index]] * count) if self.titles else ()
        nodes = (*self.nodes, *[node] * count)
        return replace(self, nodes=nodes, kinds=kinds, titles=titles)

    def runs_on(self, node: int) -> bool:
        return not self.kinds or bool(self.kinds[node])

    def allows(self, model: ModelShape, stages: Sequence[Sequence[int]]) -> bool:
        """Whether the engine cuts the model into these stages of nodes."""
        for stage in stages:
            if len(stage) > 1 and any(self.nodes[node].host is not None for node in stage):
                return False  # cards beside host memory are a stage of their own
        kinds = self.kinds or ("",) * len(self.nodes)
        return self.rules.allow(model, stages, kinds, self.titles)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Stages in order: machines (indexes into the setup) with their shares, and layers."""

    stages: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    layers: tuple[int, ...]
    whole_experts: bool = False

    @property
    def machines(self) -> tuple[int, ...]:
        return tuple(node for stage in self.stages for node in stage)

    @property
    def kind(self) -> str:
        """``one``, ``tensor``, ``pipeline`` or ``mixed``."""
        if len(self.machines) == 1:
            return "one"
        if len(self.stages) == 1:
            return "tensor"
        return "mixed" if any(len(stage) > 1 for stage in self.stages) else "pipeline"


def deploy(question: Question, setup: Setup, network: Network, layout: Layout) -> Deployment:
    """The deployment of a layout; its nodes are the layout's machines in stage order."""
    machines = layout.machines
    stages, node, layer = [], 0, 0
    for members, shares, count in zip(layout.stages, layout.shares, layout.layers, strict=True):
        whole = sum(shares)
        parts = [Fraction(max(1, round(share / whole * _PARTS)), _PARTS) for share in shares]
        stages.append(
            Stage(
                nodes=tuple(range(node, node + len(members))),
                shares=tuple(parts),
                layers=Range(start=layer, stop=layer + count),
            )
        )
        node += len(members)
        layer += count
    deployment = Deployment(
        model=question.model,
        weights=question.weights,
        nodes=tuple(setup.nodes[machine] for machine in machines),
        stages=tuple(stages),
        network=_among(network, machines),
        engine=setup.engine,
        kv_bytes_per_element=question.kv_bytes_per_element,
        whole_experts=layout.whole_experts,
    )
    return placed(deployment, question.decoding)


def ways_to_cut(order: Sequence[int], alike: bool) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Stages of neighbours in ``order``: all ways for a few machines, near-equal ones for many.

    ``alike``: all machines are equal, so that the order of stage sizes does not matter."""
    count = len(order)
    if count <= _ALL_COMPOSITIONS:
        for cuts in range(1 << (count - 1)):
            sizes = _sizes(count, cuts)
            if not alike or sizes == sorted(sizes, reverse=True):
                yield _cut(order, sizes)
        return
    some = {*range(1, 9), 12, 16} if count <= _FEW else {1, 2, 4, 8, 16, 32, 64, count // 4}
    for stages in sorted({*some, count // 2, count}):
        if 0 < stages <= count:
            yield _cut(order, apportion(count, [Fraction(1)] * stages, minimum=1))


def start_layout(
    question: Question, stages: tuple[tuple[int, ...], ...], weights: Sequence[float]
) -> Layout | None:
    """Shares and layers in proportion to the machines' ``weights``; None with too few layers."""
    layers = len(question.model.layers)
    if len(stages) > layers:
        return None
    totals = [sum(weights[node] for node in stage) for stage in stages]
    exact = [Fraction(total).limit_denominator(1 << 40) for total in _scaled(totals)]
    return Layout(
        stages=stages,
        shares=tuple(tuple(weights[node] for node in stage) for stage in stages),
        layers=tuple(apportion(layers, exact, minimum=1)),
    )


def fitted(question: Question, setup: Setup, network: Network, layout: Layout) -> Layout | None:
    """The layout with shares and layers moved away from where memory is short, as little as that
    needs; None where none was found."""
    for _ in range(_REPAIRS):
        needs = capacity(deploy(question, setup, network, layout), question.decoding).nodes
        if all(node.spare_bytes >= 0 for node in needs):
            return layout
        spare = dict(zip(layout.machines, (node.spare_bytes for node in needs), strict=True))
        held = dict(
            zip(layout.machines, (node.weight_bytes + node.kv_bytes for node in needs), strict=True)
        )
        short = min(spare, key=lambda node: spare[node])
        stage = next(i for i, members in enumerate(layout.stages) if short in members)
        changed = None
        if not setup.rules.equal:
            changed = _share_moved(layout, stage, short, spare, held)
        changed = changed or _layers_moved(layout, stage, spare, held)
        if changed is None or changed == layout:
            return None
        layout = changed
    return None


def with_layers(layout: Layout, source: int, target: int, count: int) -> Layout | None:
    """``count`` layers moved from one stage to another; None where the source has too few."""
    if layout.layers[source] <= count:
        return None
    layers = list(layout.layers)
    layers[source] -= count
    layers[target] += count
    return replace(layout, layers=tuple(layers))


def with_share(layout: Layout, stage: int, source: int, target: int, part: float) -> Layout | None:
    """``part`` of the stage moved from one of its machines (by rank) to another."""
    shares = list(layout.shares[stage])
    whole = sum(shares)
    if shares[source] <= part * whole:
        return None
    shares[source] -= part * whole
    shares[target] += part * whole
    changed = list(layout.shares)
    changed[stage] = tuple(shares)
    return replace(layout, shares=tuple(changed))


def _share_moved(
    layout: Layout, stage: int, short: int, spare: dict[int, float], held: dict[int, float]
) -> Layout | None:
    members = layout.stages[stage]
    room = {node: spare[node] for node in members if spare[node] > 0}
    missing = -spare[short]
    if sum(room.values()) <= missing:
        return None
    shares = dict(zip(members, layout.shares[stage], strict=True))
    moved = min(0.95, missing / held[short] * 1.02 + 2 / _PARTS) * shares[short]
    shares[short] -= moved
    for node, bytes_free in room.items():
        shares[node] += moved * bytes_free / sum(room.values())
    changed = list(layout.shares)
    changed[stage] = tuple(shares[node] for node in members)
    return replace(layout, shares=tuple(changed))


def _layers_moved(
    layout: Layout, stage: int, spare: dict[int, float], held: dict[int, float]
) -> Layout | None:
    if len(layout.stages) == 1:
        return None
    size = [sum(held[node] for node in members) for members in layout.stages]
    free = [sum(spare[node] for node in members) for members in layout.stages]
    target = max(range(len(free)), key=lambda i: free[i])
    if target == stage:
        return None
    a_layer = size[stage] / layout.layers[stage]
    wanted = max(1, math.ceil(-free[stage] / a_layer)) if free[stage] < 0 else 1
    room = int(free[target] / max(size[target] / layout.layers[target], 1.0))
    count = min(wanted, room, layout.layers[stage] - 1)
    return with_layers(layout, stage, target, count) if count > 0 else None


def _among(network: Network, machines: Sequence[int]) -> Network:
    """The network between these machines, numbered anew."""
    if not network.links:
        return network
    links: dict[tuple[int, int], LinkRates] = {}
    for i, a in enumerate(machines):
        for j, b in enumerate(machines[:i]):
            links[(j, i)] = network.link(b, a)
    return replace(network, links=links)


def _sizes(count: int, cuts: int) -> list[int]:
    sizes, size = [], 1
    for place in range(count - 1):
        if cuts >> place & 1:
            sizes.append(size)
            size = 0
        size += 1
    return [*sizes, size]


def _cut(order: Sequence[int], sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    stages, start = [], 0
    for size in sizes:
        stages.append(tuple(order[start : start + size]))
        start += size
    return tuple(stages)


def _scaled(values: Sequence[float]) -> list[float]:
    most = max(values)
    return [max(value / most, 1e-6) for value in values]
