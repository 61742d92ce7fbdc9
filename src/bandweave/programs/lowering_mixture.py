"""Lowering of mixtures of experts: each expert's columns are split over the nodes.

Every node routes alike, holds its columns of every expert, and gives its part of the sum. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandweave.models import cut
from bandweave.models.graph_op import GraphOp, Value
from bandweave.models.mlp_spec import (
    LARGEST,
    SIGMOID,
    SOFTMAX,
    SOFTMAX_OF_CHOSEN,
    TWO_LARGEST,
    MixtureSpec,
)
from bandweave.programs.operations import GATES
from bandweave.programs.program import Part, Vector, View, Weight
from bandweave.ranges import Range

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering

#: What an operation's numbers stand for.
SCORINGS = (SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN)
GROUP_SCORES = (LARGEST, TWO_LARGEST)
NOT_SHARED, SHARED, SHARED_GATED = range(3)


def route(low: Lowering, op: GraphOp) -> None:
    mixture, router = _mixture(op), _mixture(op).router
    (y,) = op.inputs
    parts = tuple(low.whole(weight) for weight in op.weights)
    outputs = sum(weight.shape[0] for weight in op.weights)
    low.made.weights[op.name] = Weight(
        name=op.name, parts=parts, outputs=outputs, inputs=y.width, unit=y.width, format="f32"
    )
    bias, correction = (low.replicated(vector) for vector in op.biases)
    logits = low.made.buffer("router_logits", outputs)
    low.made.op("linear", op.name, (low.views[y.name],), (logits,), weight=op.name, vector=bias)
    routes = low.made.buffer("routes", op.outputs[0].width)
    low.views[op.outputs[0].name] = routes
    shared = NOT_SHARED
    if mixture.shared_size:
        shared = SHARED_GATED if mixture.shared_gate else SHARED
    low.made.op(
        "route",
        f"{op.name}.route",
        (logits,),
        (routes,),
        vector=correction,
        experts=mixture.num_experts,
        top_k=mixture.top_k,
        scoring=SCORINGS.index(router.scoring),
        normalise=int(router.normalise),
        factor=float(router.factor),
        groups=router.groups,
        top_groups=router.top_groups,
        group_score=GROUP_SCORES.index(router.group_score),
        shared=shared,
    )


def expert_linear(low: Lowering, op: GraphOp) -> None:
    mixture, (y, routes) = _mixture(op), op.inputs
    width, shared_width = (2 * len(own) for own in _columns(low, mixture))
    total = mixture.top_k * width + shared_width
    if not total:
        return
    names: list[str | None] = []
    pieces: list[Part] = []
    inputs = Range(start=0, stop=y.width)
    for gate, up, gate_bias, up_bias in zip(
        op.weights[::2], op.weights[1::2], op.biases[::2], op.biases[1::2], strict=True
    ):
        assert gate.cut is not None
        rows = low.share.elements(gate.cut)
        if not len(rows):
            names.append(None)
            continue
        name = gate.name.removesuffix("gate_proj") + "gate_up"
        parts = (low.part(gate, rows, inputs), low.part(up, rows, inputs))
        low.made.weights[name] = Weight(
            name=name, parts=parts, outputs=2 * len(rows), inputs=y.width, unit=y.width
        )
        names.append(name)
        pieces += [low.part(one, rows) for one in (gate_bias, up_bias) if one is not None]
    made = low.made.buffer("expert_gate_up", total)
    _products(low, op, "expert_linear", (y, routes), made, names, pieces, (width, shared_width))
    gated = low.made.buffer("expert_gated", total // 2)
    low.views[op.outputs[0].name] = gated
    low.made.op(
        "expert_mul",
        f"{op.name}.mul",
        (made,),
        (gated,),
        top_k=mixture.top_k,
        width=width // 2,
        shared_width=shared_width // 2,
        function=GATES.index(mixture.gate.function),
        limit=mixture.gate.limit,
        alpha=mixture.gate.alpha,
    )


def expert_add(low: Lowering, op: GraphOp) -> None:
    mixture, (made, routes) = _mixture(op), op.inputs[-2:]
    (x,) = op.outputs
    grid = low.made.buffer("grid", x.width, dtype="grid")
    width, shared_width = (len(own) for own in _columns(low, mixture))
    if width or shared_width:
        names: list[str | None] = []
        rows = Range(start=0, stop=x.width)
        for weight in op.weights:
            columns = low.elements_of(weight)
            if not len(columns):
                names.append(None)
                continue
            low.made.weights[weight.name] = Weight(
                name=weight.name,
                parts=(low.part(weight, rows, columns),),
                outputs=x.width,
                inputs=len(columns),
                unit=low.spec.column_unit,
            )
            names.append(weight.name)
        # A bias is a unit of its own, and one node's.
        pieces: list[Part] = []
        if low.share.range(cut.columns(mixture.intermediate_size)).start == 0 and width:
            pieces = [low.whole(bias) for bias in op.biases if bias is not None]
        widths = width, shared_width
        _products(low, op, "expert_grid", (made, routes), grid, names, pieces, widths)
    low.reduce(op, grid, vector=None, contributors=low.owners(*_cuts(mixture)))


def _products(
    low: Lowering,
    op: GraphOp,
    kind: str,
    inputs: tuple[Value, Value],
    out: View,
    names: list[str | None],
    biases: list[Part],
    widths: tuple[int, int],
) -> None:
    """Products with the chosen experts' matrices, of whose ``names`` those elsewhere are None;
    ``biases`` lie one after the other; ``widths``: of a routed expert and of the shared one."""
    vector, size = None, sum(len(part.rows) for part in biases)
    if biases:
        vector = f"{op.name}.bias"
        low.made.vectors[vector] = Vector(name=vector, parts=tuple(biases), size=size)
    low.made.op(
        kind,
        op.name,
        tuple(low.views[value.name] for value in inputs),
        (out,),
        vector=vector,
        biases=size,
        matrices=tuple(names),
        top_k=_mixture(op).top_k,
        width=widths[0],
        shared_width=widths[1],
    )


def _mixture(op: GraphOp) -> MixtureSpec:
    mixture = op.attributes["mixture"]
    assert isinstance(mixture, MixtureSpec)
    return mixture


def _cuts(mixture: MixtureSpec) -> list[cut.Cut]:
    widths = [mixture.intermediate_size]
    return [cut.columns(width) for width in (*widths, mixture.shared_size) if width]


def _columns(low: Lowering, mixture: MixtureSpec) -> tuple[Range, Range]:
    """The node's columns of a routed expert and of the shared one."""
    routed = low.share.range(cut.columns(mixture.intermediate_size))
    if not mixture.shared_size:
        return routed, Range(start=0, stop=0)
    return routed, low.share.range(cut.columns(mixture.shared_size))
