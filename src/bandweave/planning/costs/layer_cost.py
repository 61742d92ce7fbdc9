"""The time of one layer on each node of a stage, without exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.models.model_shape import AttentionShape, LayerShape, distinct_experts
from bandweave.planning.costs.deployment import (
    ON_THE_CARD,
    Deployment,
    Fractions,
    Stage,
    fractions,
)
from bandweave.planning.costs.experts import expected_busiest
from bandweave.planning.machines.rates import NodeRates

#: Exponents of ``distinct_experts``: what prediction ranges span. Source: prediction.md, Cost.
ROUTING = {"slow": 1.0, "likely": 0.87, "fast": 0.75}


@dataclass(frozen=True, kw_only=True)
class Items:
    """Where the time of a step goes, in seconds; they add up to the wall time."""

    weights_s: float = 0.0  # reading weights
    compute_s: float = 0.0  # what FLOPs take beyond that
    attention_s: float = 0.0  # reading the cache and its FLOPs
    overhead_s: float = 0.0  # the engine's fixed times
    exchange_latency_s: float = 0.0
    exchange_bytes_s: float = 0.0
    handover_s: float = 0.0  # between pipeline stages

    @property
    def total_s(self) -> float:
        return (
            self.weights_s + self.compute_s + self.attention_s + self.overhead_s
            + self.exchange_latency_s + self.exchange_bytes_s + self.handover_s
        )  # fmt: skip

    def plus(self, other: Items) -> Items:
        return Items(
            weights_s=self.weights_s + other.weights_s,
            compute_s=self.compute_s + other.compute_s,
            attention_s=self.attention_s + other.attention_s,
            overhead_s=self.overhead_s + other.overhead_s,
            exchange_latency_s=self.exchange_latency_s + other.exchange_latency_s,
            exchange_bytes_s=self.exchange_bytes_s + other.exchange_bytes_s,
            handover_s=self.handover_s + other.handover_s,
        )

    def times(self, factor: float) -> Items:
        return Items(
            weights_s=self.weights_s * factor,
            compute_s=self.compute_s * factor,
            attention_s=self.attention_s * factor,
            overhead_s=self.overhead_s * factor,
            exchange_latency_s=self.exchange_latency_s * factor,
            exchange_bytes_s=self.exchange_bytes_s * factor,
            handover_s=self.handover_s * factor,
        )


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """The rows of a step: one a stream when decoding, a chunk of one stream in a prefill.

    A prefill's rows stand for the average chunk of ``span`` rows from position ``start`` on.
    """

    rows: float
    streams: float
    start: int
    decoding: bool
    span: int = 0

    def pairs(self, attention: AttentionShape) -> float:
        if self.decoding:
            return self.rows * attention.visible(self.start)
        return attention.pairs(self.start, self.span) * self.rows / self.span


def layer_items(
    deployment: Deployment, stage: Stage, layer: LayerShape, batch: RowBatch, case: str
) -> list[Items]:
    """The items of one layer, for each node of the stage in its order."""
    parts = fractions(deployment, stage, layer)
    experts = _experts_read(deployment, layer, parts, batch, case)
    return [
        _node_items(deployment, node, layer, part, read, batch, case, len(stage.nodes))
        for node, part, read in zip(stage.nodes, parts, experts, strict=True)
    ]  # fmt: skip


def _experts_read(
    deployment: Deployment,
    layer: LayerShape,
    parts: tuple[Fractions, ...],
    batch: RowBatch,
    case: str,
) -> list[float]:
    """By node: how many experts' worth of weights it reads."""
    distinct = distinct_experts(layer.experts, layer.top_k, batch.rows, routing=ROUTING[case])
    if not deployment.whole_experts or len(parts) == 1 or not layer.experts:
        return [distinct * part.expert for part in parts]
    # The layer waits for the node with most of the drawn experts; which one that is varies, so
    # each node is charged in proportion to what it owns, scaled to the expected busiest one.
    drawn = min(layer.experts, max(1, round(distinct)))
    busiest = expected_busiest([part.experts for part in parts], drawn)
    largest = max(part.experts for part in parts)
    return [busiest * part.experts / largest for part in parts]


def _node_items(
    deployment: Deployment,
    node: int,
    layer: LayerShape,
    part: Fractions,
    experts_read: float,
    batch: RowBatch,
    case: str,
    stage_nodes: int,
) -> Items:
    work = _LayerWork(deployment, layer, part, experts_read, batch, case, stage_nodes)
    rates, placed = deployment.nodes[node], deployment.placement(node)
    if rates.host is None or placed == ON_THE_CARD:
        return work.on(rates)
    # The mean of a layer that is all on the card, of one whose experts are not, and of one in the
    # host's memory: a stage has so many of each.
    shared, experts = work.shared_in_host(rates), work.routed_in_host(rates)
    whole = shared.plus(experts).plus(
        Items(
            attention_s=work.attention_in_host(rates),
            overhead_s=work.overhead(rates.host.node),
        )
    )
    # Rows cross to experts in every layer, to whole layers once a stage: ``cost`` charges that.
    crossing = Items(handover_s=rates.host.crossing_s.time(case) if layer.experts else 0.0)
    apart = work.on(rates, routed=False).plus(experts).plus(crossing)
    return (
        work.on(rates).times(placed.experts)
        .plus(apart.times(placed.layers - placed.experts))
        .plus(whole.times(1 - placed.layers))
    )  # fmt: skip


@dataclass(frozen=True)
class _LayerWork:
    """What there is to do in one layer for one batch, and how long that takes on some rates."""

    deployment: Deployment
    layer: LayerShape
    part: Fractions
    experts_read: float
    batch: RowBatch
    case: str
    stage_nodes: int

    def on(self, node: NodeRates, *, routed: bool = True) -> Items:
        """All of the layer, with or without its routed experts, on one side's rates."""
        read, busy = self._time(*self._shared_size(), node)
        if routed and self.routes:
            more, also = self._routed_time(node)
            read, busy = read + more, busy + also
        return Items(
            weights_s=read,
            compute_s=busy - read,
            attention_s=self.attention(node),
            overhead_s=self.overhead(node),
        )

    def shared_in_host(self, node: NodeRates) -> Items:
        """Attention's matrices, dense FFN, shared experts, router and norms in host memory."""
        assert node.host is not None
        size, parameters = self._shared_size()
        work = 2 * self.batch.rows * parameters
        rows = max(self.batch.rows, 1.0)
        rate = node.compute_rate(self._format, rows, self.case)
        own = self._time(size, parameters, node.host.node)
        return self._there_or_carried(own, node, size, work / rate, rows)

    def routed_in_host(self, node: NodeRates) -> Items:
        """Routed experts in host memory."""
        assert node.host is not None
        if not self.routes:
            return Items()
        size, work, rows = self._routed_size()
        rate = self._expert_rate(node, rows)
        own = self._routed_time(node.host.node)
        return self._there_or_carried(own, node, size, work / rate, rows)

    def _there_or_carried(
        self, own: tuple[float, float], node: NodeRates, size: float, on_card: float, rows: float
    ) -> Items:
        """By the processor, or with the weights carried to the card where a prompt is read, as the
        engine decides. ``rows``: that each of these weights sees."""
        assert node.host is not None
        read, busy = own
        processor = Items(weights_s=read, compute_s=busy - read)
        if not self._may_carry(node, rows):
            return processor
        bus = node.host.bus_bytes_per_s.rate(self.case)
        carried = Items(exchange_bytes_s=size / bus, compute_s=on_card)
        if self.deployment.engine.carries == "always":
            return carried
        return min(processor, carried, key=lambda items: items.total_s)

    def _may_carry(self, node: NodeRates, rows: float) -> bool:
        """Whether weights that ``rows`` rows see may cross to the card."""
        assert node.host is not None
        rule, bus = self.deployment.engine.carries, node.host.bus_bytes_per_s.rate(self.case)
        if self.batch.decoding or bus <= 0 or rule == "never":
            return False
        seen = self.batch.rows if rule == "always" else rows
        return rule == "quicker" or seen >= self.deployment.engine.carry_rows

    def attention_in_host(self, node: NodeRates) -> float:
        """Seconds of attention where the cache lies in host memory: a card that gets the layer's
        weights for a prompt gets its cache too."""
        assert node.host is not None
        there = self.attention(node.host.node)
        if not self._may_carry(node, max(self.batch.rows, 1.0)):
            return there
        cache = self._cache_size() / node.host.bus_bytes_per_s.rate(self.case)
        return min(there, cache + self.attention(node))

    def attention(self, node: NodeRates) -> float:
        """Seconds: the larger of reading the cache and multiplying with it."""
        attention, batch = self.layer.attention, self.batch
        pairs = batch.pairs(attention)
        read = self._cache_size() / node.kv_bytes_per_s.rate(self.case)
        if not batch.decoding and attention.state_elements:
            # Rows of a prompt go through the state one after the other, or some at a time.
            states = 2 * batch.rows * attention.state_elements * 4.0 * self.part.attention
            read += states / node.state_bytes_per_s.rate(self.case)
        expanded = self.deployment.engine.latent_expanded_in_prefill and not batch.decoding
        each = attention.expanded_flops_per_pair if expanded else attention.flops_per_pair
        flops = pairs * each * self.part.attention
        busy = flops / node.attention_flop_per_s.rate(self.case)
        if not batch.decoding and attention.kind != "linear":
            # Without a fused kernel the scores of all pairs go to memory and come back.
            scores = pairs * attention.heads * self.part.attention
            busy += scores * node.score_s.time(self.case)
        return max(read, busy)

    def _cache_size(self) -> float:
        """Bytes of cache, or of a state, that are read."""
        attention, batch = self.layer.attention, self.batch
        pairs = batch.pairs(attention)
        # Decoding reads each stream's cache for its own row; a chunk's rows share one reading.
        readings = pairs if batch.decoding else pairs / batch.rows
        size = readings * attention.kv_elements * self.deployment.kv_bytes_per_element
        state = 2 * batch.streams * attention.state_elements * 4.0 * self.part.attention
        return size * self.part.kv + state

    def overhead(self, node: NodeRates) -> float:
        """Seconds: the engine's fixed time of the layer."""
        overhead = node.overhead(bool(self.layer.experts), self.case)
        if self.layer.attention.kind == "latent":
            overhead += node.latent_overhead_s.time(self.case)
        if self.layer.attention.state_elements:
            overhead += node.linear_overhead_s.time(self.case)
        divided = self.deployment.engine.sharded_overhead * (1.0 - 1.0 / self.stage_nodes)
        overhead *= 1.0 - divided
        if self.layer.experts and not self.batch.decoding:
            overhead += self.batch.rows * node.routing_row_s.time(self.case)
        return overhead

    @property
    def routes(self) -> bool:
        return bool(self.layer.experts) and self.experts_read > 0

    @property
    def _format(self) -> str:
        return self.deployment.weights.name

    def _shared_size(self) -> tuple[float, float]:
        """Bytes and parameters that this node reads."""
        layer, part, weights = self.layer, self.part, self.deployment.weights
        shared = [
            ("attention", layer.attention.parameters * part.attention),
            ("dense", layer.dense_parameters * part.dense),
            ("shared", layer.shared_parameters * (part.expert if layer.experts else part.dense)),
            ("router", layer.router_parameters),
            ("norm", layer.norm_parameters),
        ]
        size = sum(weights.of(role) * count for role, count in shared)
        return size, sum(count for _, count in shared)

    def _routed_size(self) -> tuple[float, float, float]:
        """Bytes and FLOPs of the experts that this node reads, and the rows that each sees."""
        layer, rows = self.layer, self.batch.rows
        size = self.experts_read * layer.expert_parameters * self.deployment.weights.of("expert")
        routed = rows * layer.top_k
        # Rows that an expert sees: all routed rows over the experts that there are to read.
        distinct = distinct_experts(layer.experts, layer.top_k, rows, routing=ROUTING[self.case])
        work = 2 * routed * layer.expert_parameters * self.experts_read / distinct
        return size, work, max(routed / distinct, 1.0)

    def _time(self, size: float, parameters: float, node: NodeRates) -> tuple[float, float]:
        """Seconds of reading, and of all that products with these parameters take."""
        read = size / node.weight_rate(self._format, self.case)
        rows = self.batch.rows
        flops = 2 * rows * parameters
        return read, max(read, flops / node.compute_rate(self._format, max(rows, 1.0), self.case))

    def _routed_time(self, node: NodeRates) -> tuple[float, float]:
        size, work, rows = self._routed_size()
        read = size / node.weight_rate(self._format, self.case)
        return read, max(read, work / self._expert_rate(node, rows))

    def _expert_rate(self, node: NodeRates, rows: float) -> float:
        """FLOP/s of experts that see so many rows each. A card computes tiles of a prompt's rows,
        which few rows do not fill; single rows have kernels of their own."""
        if node.expert_compute is None:
            return node.compute_rate(self._format, rows, self.case)
        rate = node.expert_compute.rate(rows, self.case)
        filled = 1.0 if self.batch.decoding else rows / (rows + node.half_filled_rows)
        return rate * filled
