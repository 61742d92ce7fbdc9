"""Lowering of gated delta nets: a node has its key heads, and the value heads that these serve.

Nothing crosses heads, so each node keeps the states of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bandweave.models.attention_spec import LinearSpec
from bandweave.models.graph_op import GraphOp, Value
from bandweave.programs.program import StateShape, Vector, View

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def short_conv(low: Lowering, op: GraphOp) -> None:
    if not len(low.elements(op.inputs[0])):
        return
    source, kernel = _side_by_side(low, op.inputs), op.attributes["kernel"]
    assert isinstance(kernel, int)
    out = low.made.buffer("delta_mixed", source.width)
    offset = 0
    for value in op.outputs:
        width = len(low.elements(value))
        low.views[value.name] = View(buffer=out.buffer, offset=offset, width=width)
        offset += width
    parts = tuple(low.part(weight, low.elements_of(weight)) for weight in op.weights)
    size = kernel * source.width
    low.made.vectors[op.name] = Vector(name=op.name, parts=parts, size=size)
    state = low.made.state(StateShape(row=source.width, history=kernel - 1))
    low.made.op(
        "short_conv", op.name, (source,), (out,), vector=op.name, state=state, kernel=kernel,
        weights=size,
    )  # fmt: skip


def l2_norm(low: Lowering, op: GraphOp) -> None:
    (value,) = op.inputs
    if not len(low.elements(value)):
        return
    view = low.views[value.name]
    dim, eps, factor = (op.attributes[name] for name in ("dim", "eps", "factor"))
    assert isinstance(dim, int) and isinstance(eps, float) and isinstance(factor, float)
    groups = view.width // dim
    low.made.op(
        "l2_norm", op.name, (view,), (view,), groups=groups, dim=dim, eps=eps, factor=factor
    )


def delta_gates(low: Lowering, op: GraphOp) -> None:
    if not len(low.elements(op.inputs[0])):
        return
    source = _side_by_side(low, op.inputs)
    parts = tuple(low.part(weight, low.elements_of(weight)) for weight in op.weights)
    low.made.vectors[op.name] = Vector(name=op.name, parts=parts, size=source.width)
    out = low.views[op.outputs[0].name] = low.made.buffer("delta_gates", source.width)
    heads = source.width // 2
    low.made.op("delta_gates", op.name, (source,), (out,), vector=op.name, heads=heads)


def delta_rule(low: Lowering, op: GraphOp) -> None:
    *mixed, gates = op.inputs
    own = len(low.elements(mixed[0]))
    if not own:
        return
    spec = op.attributes["linear"]
    assert isinstance(spec, LinearSpec)
    key_heads = own // spec.key_dim
    heads = key_heads * spec.sharing
    state = low.made.state(
        StateShape(
            heads=heads,
            k_dim=spec.key_dim,
            v_dim=spec.value_dim,
            row=heads * (spec.key_dim + spec.value_dim + 2),
        )
    )
    out = low.made.buffer("delta_out", heads * spec.value_dim)
    low.views[op.outputs[0].name] = out
    low.made.op(
        "delta_rule",
        op.name,
        (_side_by_side(low, mixed), low.views[gates.name]),
        (out,),
        state=state,
        heads=heads,
        key_heads=key_heads,
        k_dim=spec.key_dim,
        v_dim=spec.value_dim,
    )


def _side_by_side(low: Lowering, values: Sequence[Value]) -> View:
    """Several values of one buffer, each of which follows the one before, as one."""
    views = [low.views[value.name] for value in values]
    first, stop = views[0], views[0].offset
    for view in views:
        assert (view.buffer, view.offset) == (first.buffer, stop), "they do not lie side by side"
        stop += view.width
    return View(buffer=first.buffer, offset=first.offset, width=stop - first.offset)
