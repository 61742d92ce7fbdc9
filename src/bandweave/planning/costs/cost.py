"""The time of a decode step and of a prefill, item by item. Bytes, FLOPs, latency; no I/O.

A layer takes as long as its slowest node. A node's layer is ``max(weight bytes / read rate, FLOPs /
compute rate)`` for what all rows share and for routed experts apart (the roofline, Williams et al.
2009), plus attention, plus the engine's fixed time of a layer; then come the stage's exchanges.
Items of a layer are those of its slowest node, so that they add up to the wall time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from bandweave.planning.costs.deployment import (
    ON_THE_CARD,
    Deployment,
    Stage,
    Workload,
    fractions,
)
from bandweave.planning.costs.exchange import NO_EXCHANGE, ExchangeTime, broadcast, exchange
from bandweave.planning.costs.layer_cost import Items, RowBatch, layer_items
from bandweave.planning.costs.ranges import range_power
from bandweave.planning.machines.rates import CASES

EXCHANGES_A_LAYER = 2  # attention output, FFN or expert output
_MOST_CHUNKS = 4  # of a sum, in an engine that sends its rows while the product goes on
_OF_THE_LAYER = 0.2  # of a layer's products: each of the two that give sums


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage's part of a step. ``busy_s``: by node, computing, not waiting."""

    items: Items
    busy_s: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """A step: one token for every stream. ``period_s`` is the time between finished steps."""

    items: Items  # of one group's way through all stages
    step_s: float  # the sum of the items
    period_s: float  # what all streams wait for their next token
    streams: int
    busy_s: tuple[float, ...]  # by node, in a period

    @property
    def tokens_per_s(self) -> float:
        return self.streams / self.period_s

    @property
    def tokens_per_s_per_stream(self) -> float:
        return 1.0 / self.period_s

    @property
    def idle(self) -> tuple[float, ...]:
        """By node: the part of the time in which it computes nothing, exchanges included."""
        return tuple(max(0.0, 1.0 - busy / self.period_s) for busy in self.busy_s)


@dataclass(frozen=True, kw_only=True)
class PrefillCost:
    """Reading a prompt until its first token is known."""

    items: Items
    total_s: float
    prompt: int

    @property
    def tokens_per_s(self) -> float:
        return self.prompt / self.total_s


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A figure at the three ends: most likely, lowest and highest."""

    likely: float
    low: float
    high: float


def decode_step(deployment: Deployment, workload: Workload, case: str = "likely") -> StepCost:
    """One decode step of ``workload.streams`` streams with ``context`` tokens in their caches.

    With ``overlaps_stages`` and several streams, the streams go through the stages in as many
    groups as there are stages: ``period = max(stages * slowest stage, way through all)``. Else one
    stage works at a time: a pipeline adds up memory, never speed. A medium that all share carries
    one group's messages after another's.
    """
    _check(deployment, workload, case)
    stages = len(deployment.stages)
    groups = min(stages, workload.streams) if deployment.engine.overlaps_stages else 1
    rows = workload.streams / groups
    batch = RowBatch(rows=rows, streams=rows, start=workload.context, decoding=True)
    parts = [_stage(deployment, stage, batch, case) for stage in deployment.stages]
    items = Items()
    for part in parts:
        items = items.plus(part.items)
    step = items.total_s
    slowest = max(part.items.total_s for part in parts)
    busy = _by_node(deployment, parts)
    return StepCost(
        items=items,
        step_s=step,
        period_s=max(groups * slowest, step, groups * _on_channel(deployment, items)),
        streams=workload.streams,
        busy_s=tuple(groups * seconds for seconds in busy),
    )


def prefill(deployment: Deployment, workload: Workload, case: str = "likely") -> PrefillCost:
    """``workload.prompt`` tokens of one stream behind ``context`` cached ones, in chunks.

    Attention is quadratic: ``pairs`` counts them exactly. Chunks follow each other through the
    stages at once where the engine overlaps stages: of every ``chunks_in_flight`` of them the first
    takes the time of all stages, each other one that of the slowest.
    """
    _check(deployment, workload, case)
    if workload.prompt < 1:
        raise ValueError(f"a prompt of {workload.prompt} tokens cannot be read")
    chunk = min(_chunk_rows(deployment), workload.prompt)
    whole, rest = divmod(workload.prompt, chunk)
    items, overlapped = Items(), 0.0
    runs = [(whole, chunk, workload.context, whole * chunk)]
    if rest:
        runs.append((1, rest, workload.context + whole * chunk, rest))
    for count, rows, start, span in runs:
        batch = RowBatch(rows=rows, streams=1, start=start, decoding=False, span=span)
        parts = [_stage(deployment, stage, batch, case) for stage in deployment.stages]
        for part in parts:
            items = items.plus(part.items.times(count))
        slowest = max(part.items.total_s for part in parts)
        through = sum(part.items.total_s for part in parts)
        waves = -(-count // deployment.engine.chunks_in_flight)
        overlapped += waves * through + (count - waves) * slowest
    total = items.total_s
    if deployment.engine.overlaps_stages:
        share, channel = deployment.engine.overlap, _on_channel(deployment, items)
        total = max(min(total, share * overlapped + (1 - share) * total), channel)
        items = items.times(total / items.total_s) if items.total_s else items
    return PrefillCost(items=items, total_s=total, prompt=workload.prompt)


def _chunk_rows(deployment: Deployment) -> int:
    """Rows of a chunk; longer ones where each chunk carries weights over a bus."""
    engine = deployment.engine
    carried = engine.carries != "never" and any(
        deployment.placement(node) != ON_THE_CARD and rates.host.bus_bytes_per_s.likely > 0
        for node, rates in enumerate(deployment.nodes)
        if rates.host is not None
    )
    return max(engine.chunk_rows, engine.streamed_rows) if carried else engine.chunk_rows


def stage_costs(deployment: Deployment, batch: RowBatch, case: str = "likely") -> list[StageCost]:
    """What each stage does for one batch, its handover from the stage before included."""
    return [_stage(deployment, stage, batch, case) for stage in deployment.stages]


def decode_range(deployment: Deployment, workload: Workload) -> Prediction:
    """Tokens a second of all streams together."""
    likely, slow, fast = (decode_step(deployment, workload, case).tokens_per_s for case in CASES)
    return _widened(likely, slow, fast, range_power(deployment, reading=False))


def prefill_range(deployment: Deployment, workload: Workload) -> Prediction:
    """Prompt tokens a second."""
    likely, slow, fast = (prefill(deployment, workload, case).tokens_per_s for case in CASES)
    return _widened(likely, slow, fast, range_power(deployment, reading=True))


def _widened(likely: float, slow: float, fast: float, power: float) -> Prediction:
    low, high = likely * (slow / likely) ** power, likely * (fast / likely) ** power
    return Prediction(likely=likely, low=min(low, likely), high=max(high, likely))


def _on_channel(deployment: Deployment, items: Items) -> float:
    """Seconds that these items keep a medium busy which all links share, if they do. Its latency
    counts: on such a medium it is mostly waiting for one's turn."""
    if not deployment.network.default.channel:
        return 0.0
    return items.exchange_latency_s + items.exchange_bytes_s + items.handover_s


def _check(deployment: Deployment, workload: Workload, case: str) -> None:
    assert case in CASES, case
    if workload.streams < 1 or workload.context < 0:
        raise ValueError(f"{workload.streams} streams of context {workload.context} are no work")


def _stage(deployment: Deployment, stage: Stage, batch: RowBatch, case: str) -> StageCost:
    first, last = stage is deployment.stages[0], stage is deployment.stages[-1]
    items = Items()
    busy = dict.fromkeys(stage.nodes, 0.0)
    kinds = deployment.model.distinct_layers(stage.layers.start, stage.layers.stop)
    chunks = exchange_chunks(deployment, stage, batch)
    crossing = _layer_exchange(deployment, stage, batch, chunks, case)
    for layer, count in kinds:
        by_node = layer_items(deployment, stage, layer, batch, case)
        slowest = max(by_node, key=lambda node: node.total_s)
        items = items.plus(slowest.times(count))
        for node, own in zip(stage.nodes, by_node, strict=True):
            busy[node] += own.total_s * count
        # All chunks of a sum but the last cross while the product that makes it goes on.
        product = _OF_THE_LAYER * (slowest.weights_s + slowest.compute_s)
        hidden = (chunks - 1) / chunks * min(crossing.bytes_s, product)
        own = ExchangeTime(
            latency_s=crossing.latency_s, bytes_s=max(0.0, crossing.bytes_s - hidden)
        )
        items = items.plus(_exchanged(own, EXCHANGES_A_LAYER * count))
    items = items.plus(_opening(deployment, stage, batch, case))
    items = items.plus(_between_memories(deployment, stage, case))
    if last:
        items = items.plus(_head(deployment, stage, batch, case, busy))
    if first:
        nodes = [deployment.nodes[node].step_overhead_s.time(case) for node in stage.nodes]
        items = items.plus(Items(overhead_s=max(nodes)))
    return StageCost(items=items, busy_s=busy)


def _layer_exchange(
    deployment: Deployment, stage: Stage, batch: RowBatch, chunks: int, case: str
) -> ExchangeTime:
    size = batch.rows * deployment.model.hidden * deployment.engine.wire_bytes_per_value
    engine = deployment.engine
    time = exchange(
        deployment.network, stage.nodes, size, case,
        two_step=engine.two_step_exchange, hop_bytes=engine.hop_bytes * chunks,
    )  # fmt: skip
    if len(stage.nodes) < 2:
        return time
    latency = time.latency_s + deployment.engine.exchange_s * math.log2(len(stage.nodes))
    return ExchangeTime(latency_s=latency, bytes_s=time.bytes_s)


def exchange_chunks(deployment: Deployment, stage: Stage, batch: RowBatch) -> int:
    """In how many parts a sum of so many rows leaves."""
    engine = deployment.engine
    size = batch.rows * deployment.model.hidden * engine.wire_bytes_per_value
    if len(stage.nodes) < 2 or not engine.overlap_rows:
        return 1
    if batch.rows < 2 * engine.overlap_rows or size < 2 * engine.hop_bytes:
        return 1
    return min(_MOST_CHUNKS, int(batch.rows // engine.overlap_rows))


def _exchanged(time: ExchangeTime, count: int) -> Items:
    return Items(exchange_latency_s=time.latency_s * count, exchange_bytes_s=time.bytes_s * count)


def _opening(deployment: Deployment, stage: Stage, batch: RowBatch, case: str) -> Items:
    """What a stage starts from: the embedding rows from node 0, or the stage before's result; and
    the way back of the token that was chosen."""
    size = batch.rows * deployment.model.hidden * deployment.engine.handover_bytes_per_value
    index = deployment.stages.index(stage)
    if index == 0:
        source = stage.nodes[0]
        return _exchanged(broadcast(deployment.network, source, stage.nodes, size, case), 1)
    source = deployment.stages[index - 1].nodes[0]
    over = broadcast(deployment.network, source, stage.nodes, size, case)
    items = Items(handover_s=over.total_s + deployment.engine.hop_s)
    if stage is deployment.stages[-1]:
        back = broadcast(
            deployment.network, stage.nodes[0], (deployment.stages[0].nodes[0],), 8.0, case
        )
        items = items.plus(Items(handover_s=back.latency_s))
    return items


def _between_memories(deployment: Deployment, stage: Stage, case: str) -> Items:
    """The way from a stage's layers in host memory to those on its cards, and back."""
    host, placed = deployment.nodes[stage.nodes[0]].host, deployment.placement(stage.nodes[0])
    if host is None or not 0.0 < placed.layers < 1.0:
        return Items()
    return Items(handover_s=2 * host.crossing_s.time(case))


def _head(
    deployment: Deployment, stage: Stage, batch: RowBatch, case: str, busy: dict[int, float]
) -> Items:
    """The vocabulary projection of one row a stream, split by rows, and the candidates' way."""
    model, weights = deployment.model, deployment.weights
    layer = model.layers[stage.layers.start]
    rows = batch.streams if batch.decoding else batch.streams * batch.rows / (batch.span or 1)
    slowest = Items()
    for node, part in zip(stage.nodes, fractions(deployment, stage, layer), strict=True):
        rates = deployment.nodes[node]
        if rates.host is not None and deployment.placement(node).layers == 0.0:
            rates = rates.host.node
        count = model.head_parameters * part.vocabulary
        read = count * weights.of("head") / rates.weight_rate(weights.name, case)
        flops = 2 * rows * count / rates.compute_rate(weights.name, max(rows, 1), case)
        # A prefill needs the last row alone: the head is read once in it, not once a chunk.
        read *= 1.0 if batch.decoding else min(1.0, rows)
        own = Items(weights_s=read, compute_s=max(0.0, flops - read))
        busy[node] += own.total_s
        slowest = max(slowest, own, key=lambda items: items.total_s)
    gathered = NO_EXCHANGE
    if len(stage.nodes) > 1:
        gathered = exchange(deployment.network, stage.nodes, 16.0 * rows, case, two_step=False)
    return slowest.plus(_exchanged(gathered, 1))


def _by_node(deployment: Deployment, parts: list[StageCost]) -> list[float]:
    busy = [0.0] * len(deployment.nodes)
    for part in parts:
        for node, seconds in part.busy_s.items():
            busy[node] += seconds
    return busy


def item_names() -> tuple[str, ...]:
    """The names of the items, in the order in which a step goes through them."""
    return tuple(field.name for field in fields(Items))
