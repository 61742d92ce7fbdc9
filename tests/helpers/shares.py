"""What a node owns of each number of heads and columns that a model's layers have."""

from __future__ import annotations

from collections.abc import Mapping

from bandweave.models import cut
from bandweave.models.attention_spec import HeadsSpec, LinearSpec
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.spec import ModelSpec
from bandweave.programs.split import NodeShare
from bandweave.ranges import Range


def head_counts(spec: ModelSpec) -> list[int]:
    """The numbers of query heads of the layers, and of key heads where they have a state, each
    once, in order of first use."""
    found = [layer.attention for layer in spec.layers]
    return list(
        dict.fromkeys(
            one.key_heads if isinstance(one, LinearSpec) else one.num_heads for one in found
        )
    )


def column_counts(spec: ModelSpec) -> list[int]:
    """The widths of the layers' MLPs, of experts and shared experts too, likewise."""
    widths: list[int] = []
    for layer in spec.layers:
        widths.append(layer.mlp.intermediate_size)
        if isinstance(layer.mlp, MixtureSpec) and layer.mlp.shared_size:
            widths.append(layer.mlp.shared_size)
    return list(dict.fromkeys(widths))


def head_ranges(spec: ModelSpec, share: NodeShare) -> Mapping[int, Range]:
    """By number of heads; the width of a head counts for nothing here."""
    return {count: share.range(cut.heads(count, 1)) for count in head_counts(spec)}


def column_ranges(spec: ModelSpec, share: NodeShare) -> Mapping[int, Range]:
    return {width: share.range(cut.columns(width)) for width in column_counts(spec)}


def kv_head_ranges(spec: ModelSpec, share: NodeShare) -> Mapping[HeadsSpec, Range]:
    """By attention, of those with KV heads."""
    return {
        one: share.range(cut.kv_heads(one.num_kv_heads, one.head_dim, one.heads_per_kv_head))
        for one in {layer.attention for layer in spec.layers}
        if isinstance(one, HeadsSpec)
    }
