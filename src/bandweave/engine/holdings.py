"""Holdings: who holds what of a model, as data for reports and pages."""

from __future__ import annotations

from typing import Any

from bandweave.engine.lineup import Lineup
from bandweave.ranges import Range


def plan_of(lineup: Lineup) -> dict[str, Any]:
    """Who holds what; ranges are half-open pairs. Heads and columns are those of the first layer,
    columns also of all MLPs by their width, in which dense ones and experts differ."""
    options, nodes = lineup.options, []
    for node in lineup.nodes:
        share = node.share
        heads, kv_heads = share.heads_of(lineup.spec.layers[0].attention)
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
        "exact": _exact(lineup),
        "context": lineup.context,
        "content": {
            **vars(lineup.agreement),
            "manifest_bytes": sum(node.manifest_bytes for node in lineup.nodes),
        },
    }


def _pair(own: Range) -> list[int]:
    return [own.start, own.stop]


def _exact(lineup: Lineup) -> bool:
    """Whether the answer is that of one node: nothing that crosses is rounded."""
    return lineup.options.run.wire == "exact" or len(lineup.nodes) == 1
