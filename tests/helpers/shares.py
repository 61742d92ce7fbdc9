"""What a node owns in a model whose layers are all alike."""

from __future__ import annotations

from bandweave.models import cut
from bandweave.models.spec import ModelSpec
from bandweave.programs.split import NodeShare
from bandweave.ranges import Range


def head_range(spec: ModelSpec, share: NodeShare) -> Range:
    return share.range(cut.heads(spec.num_heads, spec.head_dim))


def kv_head_range(spec: ModelSpec, share: NodeShare) -> Range:
    return share.range(cut.kv_heads(spec.num_kv_heads, spec.head_dim, spec.heads_per_kv_head))


def column_range(spec: ModelSpec, share: NodeShare) -> Range:
    return share.range(cut.columns(spec.intermediate_size))
