"""Capacity: whether a deployment fits into its nodes' memory, and by how much not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.planning.costs.deployment import Deployment, Workload, fractions

#: An engine's own: interpreter, libraries, code, buffers of panels while loading.
BASE_BYTES = 124 << 20
_WORK_BYTES_PER_VALUE = 4
_WORK_VALUES = 8  # buffers as wide as the model that a step keeps, beside the FFN's


@dataclass(frozen=True, kw_only=True)
class NodeCapacity:
    """Bytes that one node needs, and has. ``memories``: of a node with cards beside host memory,
    what each of the two needs and has."""

    name: str
    weight_bytes: float
    kv_bytes: float
    work_bytes: float
    available_bytes: int
    memories: tuple[tuple[str, float, int], ...] = ()

    @property
    def needed_bytes(self) -> float:
        return self.weight_bytes + self.kv_bytes + self.work_bytes

    @property
    def spare_bytes(self) -> float:
        """Below zero: what is missing, in the fuller memory where there are two."""
        spare = [available - needed for _, needed, available in self.memories]
        return min(spare, default=self.available_bytes - self.needed_bytes)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    nodes: tuple[NodeCapacity, ...]

    @property
    def fits(self) -> bool:
        return all(node.spare_bytes >= 0 for node in self.nodes)

    @property
    def missing_bytes(self) -> float:
        """What all nodes together lack."""
        return sum(max(0.0, -node.spare_bytes) for node in self.nodes)


def capacity(deployment: Deployment, workload: Workload) -> Capacity:
    """Weights of each node's part, ``streams`` caches of ``context + prompt`` tokens, work space.

    Where the engine keeps the embedding table in memory it lies with the first node, whole; a tied
    table only once where that node also holds the head.
    """
    result: list[NodeCapacity | None] = [None] * len(deployment.nodes)
    model, weights = deployment.model, deployment.weights
    tokens = workload.context + workload.prompt
    for stage in deployment.stages:
        first, last = stage is deployment.stages[0], stage is deployment.stages[-1]
        held = [0.0] * len(stage.nodes)
        cached = [0.0] * len(stage.nodes)
        routed = 0.0  # of what a lone node holds, the routed experts
        widest = model.hidden
        kinds = model.distinct_layers(stage.layers.start, stage.layers.stop)
        for layer, count in kinds:
            sizes = {role: weights.of(role) * count for role, count in
                     layer.total_by_role().items()}  # fmt: skip
            attention = layer.attention
            seen = min(tokens, attention.window or tokens)
            cache = attention.kv_elements * seen * deployment.kv_bytes_per_element
            cache += attention.state_elements * 4
            for rank, part in enumerate(fractions(deployment, stage, layer)):
                shared = part.expert if layer.experts else part.dense
                held[rank] += count * (
                    sizes["attention"] * part.attention + sizes["dense"] * part.dense
                    + sizes["expert"] * part.expert + sizes["shared"] * shared
                    + sizes["router"] + sizes["norm"]
                )  # fmt: skip
                cached[rank] += count * workload.streams * cache * part.kv
                routed += count * sizes["expert"] * part.expert
            widest = max(widest, layer.dense_width, layer.expert_width * layer.top_k)
        head = fractions(deployment, stage, model.layers[stage.layers.start])
        for rank, node in enumerate(stage.nodes):
            projection = table = 0.0
            if last:
                projection = weights.of("head") * model.head_parameters * head[rank].vocabulary
            tied_here = model.tied and last and len(stage.nodes) == 1
            holds = deployment.engine.embedding_in_memory and first and rank == 0
            if holds and not tied_here:
                table = weights.of("embedding") * model.embedding_parameters
            rows = deployment.engine.chunk_rows + workload.streams
            values = _WORK_VALUES * model.hidden + 3 * widest
            rates, placed = deployment.nodes[node], deployment.placement(node)
            work = BASE_BYTES + rows * values * _WORK_BYTES_PER_VALUE
            memories: tuple[tuple[str, float, int], ...] = ()
            if rates.host is not None:
                card = placed.layers * (held[rank] - routed + cached[rank])
                card += placed.experts * routed + work + (projection if placed.layers else 0.0)
                total = held[rank] + cached[rank] + projection + table + 2 * work
                beside = rates.memory_bytes - rates.host.card_bytes
                memories = (("cards", card, rates.host.card_bytes), ("host", total - card, beside))
            result[node] = NodeCapacity(
                name=rates.name,
                weight_bytes=held[rank] + projection + table,
                kv_bytes=cached[rank],
                work_bytes=work * (2 if memories else 1),
                available_bytes=rates.memory_bytes,
                memories=memories,
            )
    return Capacity(nodes=tuple(node for node in result if node is not None))
