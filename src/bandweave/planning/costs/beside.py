"""Cards beside host memory: which tensors lie where. Pure.

Two ways are looked at, those that engines have: experts in the host's memory and all else on the
cards (``--n-cpu-moe`` and its like), or whole layers here and there (``--gpu-layers``). Either
fills the cards as far as they go; the quicker one counts. Knows no engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import decode_step
from bandweave.planning.costs.deployment import Deployment, Placement, Stage, Workload


def placed(deployment: Deployment, workload: Workload) -> Deployment:
    """The deployment with the quickest placement for decoding of each node that has cards beside
    host memory; one that does not fit where none does, so that ``capacity`` can say so."""
    for stage in deployment.stages:
        node = stage.nodes[0]
        if deployment.nodes[node].host is None:
            continue
        options = [
            replace(deployment, placements={**deployment.placements, node: placement})
            for placement in _options(deployment, stage, workload)
        ]
        best = min(options, key=lambda option: decode_step(option, workload).step_s)
        deployment = best
    return deployment


def placement_phrase(deployment: Deployment, node: int) -> str:
    """``experts of 12 of 58 layers on the card, the others in host memory``, in words."""
    stage = next(stage for stage in deployment.stages if node in stage.nodes)
    placed = deployment.placement(node)
    layers = len(stage.layers)
    routed = _routing_layers(deployment, stage)
    if placed.experts == 1.0:
        return "everything on the cards"
    if placed.layers == 0.0:
        return "everything in host memory"
    if placed.layers == 1.0:
        count = round(placed.experts * routed)
        some = f"the experts of {count} of {routed} layers" if count else "the KV cache"
        return f"attention, shared parts and {some} on the cards, experts in host memory"
    count = round(placed.layers * layers)
    return f"{count} of {layers} layers on the cards, the others in host memory"


def _routing_layers(deployment: Deployment, stage: Stage) -> int:
    layers = range(stage.layers.start, stage.layers.stop)
    return sum(bool(deployment.model.layers[number].experts) for number in layers)


def _options(deployment: Deployment, stage: Stage, workload: Workload) -> Iterator[Placement]:
    """Placements that fill the cards; always at least one."""
    node = stage.nodes[0]
    layers = len(stage.layers)
    routed = _routing_layers(deployment, stage)

    def room(layer_part: float, expert_part: float) -> float:
        there = replace(
            deployment,
            placements={
                **deployment.placements,
                node: Placement(layers=layer_part, experts=expert_part),
            },
        )
        _, needed, available = capacity(there, workload).nodes[node].memories[0]
        return available - needed

    if routed and room(1.0, 0.0) >= 0:
        each = (room(1.0, 0.0) - room(1.0, 1.0)) / routed
        count = min(routed, math.floor(room(1.0, 0.0) / each))
        yield Placement(layers=1.0, experts=count / routed)
    # What a first layer brings besides itself is the head's.
    first = room(1 / layers, 1 / layers)
    each = (room(0.5, 0.5) - room(1.0, 1.0)) / (layers / 2)
    count = min(layers, 1 + math.floor(first / each)) if first >= 0 else 0
    yield Placement(layers=count / layers, experts=count / layers)
