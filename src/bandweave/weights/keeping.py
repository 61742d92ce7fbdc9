"""Keeping: what a start had to pack, and what it learnt of files, goes into the cache for the next
one. Knows weights and the cache; knows no programs."""

from __future__ import annotations

from collections import defaultdict

from bandweave.checkpoints.source import TensorSource
from bandweave.content.blocks import Content
from bandweave.weights.packed import Weights
from bandweave.weights.panel_cache import PanelCache
from bandweave.weights.panel_sections import section_sums


def keep_weights(
    weights: Weights, source: TensorSource, cache: PanelCache, *, model: str, weight_format: str
) -> None:
    """Puts what had to be packed into a cache, and what was learnt of the checkpoint's files. Takes
    as long as the disk does."""
    room = cache.folder.room() if weights.fresh else None
    for one in weights.fresh:
        assert room is not None
        sums = section_sums(one.section, one.weight, weights.content, one.part)
        assert sums is not None
        cache.store(
            one.key,
            one.section,
            one.part,
            weights.matrices[one.weight.name].panels,
            sums,
            names={
                "model": model,
                "weight": one.weight.name,
                "weight_format": one.weight.format_in(weight_format),
            },
            room=room,
            since=weights.since,  # what this start has found there is not forgotten for it
        )
    if weights.learnt:
        remember_content(weights.content, source, cache)
    if weights.fresh:
        cache.trim()


def remember_content(content: Content, source: TensorSource, cache: PanelCache) -> None:
    """Keeps what was learnt of a checkpoint's files, where they can be told from others."""
    by_file: dict[str, Content] = defaultdict(Content)
    for name, one in content.tensors.items():
        by_file[source.file_key(name)].tensors[name] = one
    for key, some in by_file.items():
        if key:
            cache.remember(key, some)
