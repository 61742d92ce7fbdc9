"""The time of one layer on each node of a stage, without exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.models.model_shape import AttentionShape, LayerShape, distinct_experts
from bandweave.planning.costs.deployment import Deployment, Fractions, Stage, fractions
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
        _node_items(deployment, deployment.nodes[node], layer, part, read, batch, case,
                    len(stage.nodes))
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
    node: NodeRates,
    layer: LayerShape,
    part: Fractions,
    experts_read: float,
    batch: RowBatch,
    case: str,
    stage_nodes: int,
) -> Items:
    weights, rows = deployment.weights, batch.rows
    attention = layer.attention
    shared = [  # role, parameters that this node reads
        ("attention", attention.parameters * part.attention),
        ("dense", layer.dense_parameters * part.dense),
        ("shared", layer.shared_parameters * (part.expert if layer.experts else part.dense)),
        ("router", layer.router_parameters),
        ("norm", layer.norm_parameters),
    ]
    read_rate = node.weight_rate(weights.name, case)
    read = sum(weights.of(role) * count for role, count in shared) / read_rate
    flops = 2 * rows * sum(count for _, count in shared)
    compute = flops / node.compute_rate(weights.name, max(rows, 1.0), case)
    busy = max(read, compute)
    if layer.experts and experts_read > 0:
        expert_read = experts_read * layer.expert_parameters * weights.of("expert") / read_rate
        routed = rows * layer.top_k
        # Rows that an expert sees: all routed rows over the experts that there are to read.
        distinct = distinct_experts(layer.experts, layer.top_k, rows, routing=ROUTING[case])
        work = 2 * routed * layer.expert_parameters * experts_read / distinct
        rate = _expert_rate(node, weights.name, max(routed / distinct, 1.0), case)
        read += expert_read
        busy += max(expert_read, work / rate)
    overhead = node.overhead(bool(layer.experts), case)
    if attention.kind == "latent":
        overhead += node.latent_overhead_s.time(case)
    overhead *= 1.0 - deployment.engine.sharded_overhead * (1.0 - 1.0 / stage_nodes)
    return Items(
        weights_s=read,
        compute_s=busy - read,
        attention_s=_attention(deployment, node, attention, part, batch, case),
        overhead_s=overhead,
    )


def _expert_rate(node: NodeRates, format_name: str, rows: float, case: str) -> float:
    if node.expert_compute is not None:
        return node.expert_compute.rate(rows, case)
    return node.compute_rate(format_name, rows, case)


def _attention(
    deployment: Deployment,
    node: NodeRates,
    attention: AttentionShape,
    part: Fractions,
    batch: RowBatch,
    case: str,
) -> float:
    """Seconds: the larger of reading the cache and multiplying with it."""
    pairs = batch.pairs(attention)
    element = deployment.kv_bytes_per_element
    # Decoding reads each stream's cache for its own row; the rows of a chunk share one reading.
    readings = pairs if batch.decoding else pairs / batch.rows
    size = readings * attention.kv_elements * element * part.kv
    size += 2 * batch.streams * attention.state_elements * 4.0 * part.attention
    read = size / node.kv_bytes_per_s.rate(case)
    expanded = deployment.engine.latent_expanded_in_prefill and not batch.decoding
    each = attention.expanded_flops_per_pair if expanded else attention.flops_per_pair
    flops = pairs * each * part.attention
    return max(read, flops / node.attention_flop_per_s.rate(case))
