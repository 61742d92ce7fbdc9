"""Lowering of attention with a cache of keys and values by head, and of what turns and norms its
heads before. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bandweave.models.graph_op import GraphOp
from bandweave.models.rope import RopeSpec
from bandweave.programs.program import CacheShape

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def head_norm(low: Lowering, op: GraphOp) -> None:
    """A norm of each of the node's heads."""
    if (view := low.own_view(op.inputs[0])) is not None:
        (weight,) = op.weights
        dim = weight.shape[0]
        offset = float(op.number("offset"))
        low.norm(op, view, view, groups=view.width // dim, dim=dim, offset=offset)


def part_norm(low: Lowering, op: GraphOp) -> None:
    """A norm of the first elements of a value that every node has."""
    (value,), (weight,) = op.inputs, op.weights
    view = replace(low.views[value.name], width=weight.shape[0])
    low.norm(op, view, view, groups=1, dim=view.width, eps=float(op.number("eps")))


def rope(low: Lowering, op: GraphOp) -> None:
    """Turns the node's heads by their positions."""
    if (view := low.own_view(op.inputs[0])) is not None:
        dim = int(op.number("dim"))
        spec = op.attributes["rope"]
        assert isinstance(spec, RopeSpec)
        low.made.op(
            "rope",
            op.name,
            (view,),
            (view,),
            heads=view.width // dim,
            dim=dim,
            offset=op.number("offset"),
            to_dim=dim,
            to_offset=op.number("offset"),
            rotary=spec.rotary_dim,
            interleaved=int(spec.interleaved),
            table=low.made.table(spec),
        )


def attention(low: Lowering, op: GraphOp) -> None:
    """The node's query heads, over the keys and values that they read, which it keeps."""
    query, key, value = op.inputs
    assert query.cut is not None and key.cut is not None and value.cut is not None
    heads, kv_heads = low.share.range(query.cut), low.share.range(key.cut)
    if not len(heads):
        return
    q, k, v = (low.views[one.name] for one in op.inputs)
    shape = CacheShape(kv_heads=len(kv_heads), k_dim=key.cut.width, v_dim=value.cut.width)
    cache = low.made.cache(shape)
    low.made.op(
        "kv_append",
        f"{op.name}.kv",
        (k, v),
        cache=cache,
        kv_heads=shape.kv_heads,
        k_dim=shape.k_dim,
        v_dim=shape.v_dim,
    )
    kv_map = tuple(
        head // key.cut.sharing - kv_heads.start for head in range(heads.start, heads.stop)
    )
    out = low.made.buffer("attended", q.width)
    low.views[op.outputs[0].name] = out
    low.made.op(
        "attention",
        op.name,
        (q,),
        (out,),
        cache=cache,
        heads=len(heads),
        k_dim=shape.k_dim,
        v_dim=shape.v_dim,
        vector=low.own_vector(op.weights[0], heads) if op.weights else None,
        scale=op.number("scale"),
        cap=op.number("cap"),
        window=op.number("window"),
        kv_map=kv_map,
    )
