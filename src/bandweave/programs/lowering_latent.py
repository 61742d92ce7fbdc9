"""Lowering of latent attention, always in its absorbed form: what a head's keys and values are made
of is multiplied into its queries and outputs instead. Pure.

A node has its heads' matrices and all of the cache, whose latents every node makes alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandweave.models.attention_spec import LatentSpec
from bandweave.models.graph_op import GraphOp
from bandweave.programs.program import CacheShape, View, Weight
from bandweave.ranges import Range

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def latent_attention(low: Lowering, op: GraphOp) -> None:
    query, latent = op.inputs
    spec = op.attributes["latent"]
    assert query.cut is not None and isinstance(spec, LatentSpec) and spec.rope is not None
    own = low.share.range(query.cut)
    if not len(own):
        return
    heads, rank, width = len(own), spec.kv_rank, spec.kv_rank + spec.rope_dim
    q, kv = low.views[query.name], low.views[latent.name]
    cache = low.made.cache(CacheShape(kv_heads=1, k_dim=width, v_dim=rank, latent=True))
    low.made.op("latent_append", f"{op.name}.kv", (kv,), cache=cache, k_dim=width)
    absorbed = low.made.buffer("q_latent", heads * width)
    _head_linear(low, op, "keys", own, q, absorbed)
    low.made.op(
        "rope",
        f"{op.name}.rope",
        (q,),
        (absorbed,),
        heads=heads,
        dim=query.cut.width,
        offset=spec.nope_dim,
        to_dim=width,
        to_offset=rank,
        rotary=spec.rope_dim,
        interleaved=int(spec.rope.interleaved),
        table=low.made.table(spec.rope),
    )
    summed = low.made.buffer("latent_attended", heads * rank)
    low.made.op(
        "latent_attention",
        op.name,
        (absorbed,),
        (summed,),
        cache=cache,
        heads=heads,
        k_dim=width,
        v_dim=rank,
        scale=spec.scale,
    )
    out = low.made.buffer("attended", heads * spec.v_dim)
    low.views[op.outputs[0].name] = out
    _head_linear(low, op, "values", own, summed, out)


def _head_linear(
    low: Lowering, op: GraphOp, what: str, own: Range, source: View, out: View
) -> None:
    """A product of each head: with what makes latents of its query, or outputs of a latent."""
    weight = op.weights[0 if what == "keys" else 1]
    assert weight.cut is not None
    outputs, inputs = weight.cut.width, weight.shape[1]
    names = []
    for head in range(own.start, own.stop):
        rows = Range(start=head * outputs, stop=(head + 1) * outputs)
        name = f"{weight.name}.{head}"
        low.made.weights[name] = Weight(
            name=name,
            parts=(low.part(weight, rows, Range(start=0, stop=inputs)),),
            outputs=outputs,
            inputs=inputs,
            unit=inputs,
        )
        names.append(name)
    low.made.op("head_linear", weight.name, (source,), (out,), matrices=tuple(names))
