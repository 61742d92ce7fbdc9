"""Lowering of latent attention, always in its absorbed form: what a head's keys and values are made
of is multiplied into its queries and outputs instead. Pure.

A node has its heads' matrices and all of the cache, whose latents every node makes alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandweave.models.graph import GraphOp
from bandweave.models.spec import LatentSpec
from bandweave.programs.program import CacheShape, Part, View, Weight
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
    _head_linear(low, op, "keys", own, q, absorbed, spec)
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
    _head_linear(low, op, "values", own, summed, out, spec)


def _head_linear(
    low: Lowering, op: GraphOp, what: str, own: Range, source: View, out: View, spec: LatentSpec
) -> None:
    """A product of each head: with what makes its keys, turned round, or with what makes values."""
    (weight,) = op.weights
    columns = Range(start=0, stop=spec.kv_rank)
    names = []
    for head in range(own.start, own.stop):
        start = head * (spec.nope_dim + spec.v_dim)
        middle = start + spec.nope_dim
        keys = what == "keys"
        rows = Range(start=start, stop=middle)
        if not keys:
            rows = Range(start=middle, stop=middle + spec.v_dim)
        part = Part(
            tensor=weight.name, rows=rows, columns=columns, unit=weight.unit, transposed=keys
        )
        name = f"{weight.name}.{what}.{head}"
        outputs, inputs = (len(columns), len(rows)) if keys else (len(rows), len(columns))
        low.made.weights[name] = Weight(
            name=name, parts=(part,), outputs=outputs, inputs=inputs, unit=inputs
        )
        names.append(name)
    low.made.op("head_linear", f"{weight.name}.{what}", (source,), (out,), matrices=tuple(names))
