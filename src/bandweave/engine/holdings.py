"""Holdings: who holds what of a model, as data for reports and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bandweave.engine.content_check import Agreement
from bandweave.engine.loading_nodes import NodeInfo
from bandweave.engine.options import EngineOptions
from bandweave.models.spec import ModelSpec
from bandweave.ranges import Range


class Holding(Protocol):
    """Whatever has nodes that hold a model."""

    @property
    def nodes(self) -> Sequence[NodeInfo]: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def agreement(self) -> Agreement: ...

    @property
    def context(self) -> int: ...


def plan_of(engine: Holding, options: EngineOptions) -> dict[str, Any]:
    """Who holds what; ranges are half-open pairs. Heads and columns are those of the first layer,
    columns also of all MLPs by their width, in which dense ones and experts differ."""
    nodes = []
    for node in engine.nodes:
        share = node.share
        heads, kv_heads = share.heads_of(engine.spec.layers[0].attention)
        nodes.append(
            {
                "name": node.name,
                "stage": share.stage,
                "layers": _pair(share.layers),
                "heads": _pair(heads),
                "kv_heads": _pair(kv_heads),
                "columns": _pair(share.columns[0][1]),
                "columns_by_width": {str(width): _pair(own) for width, own in share.columns},
                "vocabulary": _pair(share.vocabulary),
                "weight_bytes": node.weight_bytes,
                "kv_bytes": node.kv_bytes,
                "work_bytes": node.work_bytes,
                "threads": node.threads,
                "isa": node.isa,
                "fetch_ahead_bytes": node.fetch_ahead_bytes,
            }
        )
    return {
        "nodes": nodes,
        "stages": options.stages,
        "format": options.run.weight_format,
        "kv_format": options.run.kv_format,
        "wire": options.run.wire,
        "emulated_link": None if options.emulate is None else vars(options.emulate),
        "exact": _exact(engine, options),
        "context": engine.context,
        "content": {
            **vars(engine.agreement),
            "manifest_bytes": sum(node.manifest_bytes for node in engine.nodes),
        },
    }


def _pair(own: Range) -> list[int]:
    return [own.start, own.stop]


def _exact(engine: Holding, options: EngineOptions) -> bool:
    """Whether the answer is that of one node: nothing that crosses is rounded."""
    return options.run.wire == "exact" or len(engine.nodes) == 1
