"""Lowering of norms over all heads of all nodes together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandweave.models.graph_op import GraphOp

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def norm_of_all(low: Lowering, op: GraphOp) -> None:
    """Each head's sum of squares goes to all nodes as the bits of a float, by a sum of integers
    to which one node alone contributes them: no order of adding floats can show. Of nodes that
    hold the same KV head that one does whose query heads are the first to read it."""
    query, key = (value.cut for value in op.inputs)
    assert query is not None and key is not None
    grid = low.made.buffer("squares", query.total + key.total, dtype="grid")
    heads = low.share.range(query)
    begin = 0
    columns: list[tuple[int, int]] = []
    for value, cut in zip(op.inputs, (query, key), strict=True):
        columns.append((begin, begin + cut.total))
        own = low.share.range(cut)
        if len(heads):
            low.made.op(
                "square_sums",
                f"{op.name}.{value.name}_squares",
                (low.views[value.name],),
                (grid,),
                heads=len(own),
                dim=cut.width,
                skip=int(own.start * cut.sharing < heads.start),
                first=begin + own.start,
                begin=begin,
                end=begin + cut.total,
            )
        begin += cut.total
    low.made.op(
        "all_reduce_bits",
        f"{op.name}.reduce",
        (grid,),
        (grid,),
        tag=low.tag,
        group=tuple(low.group),
        contributors=low.owners(query),
    )
    if not len(heads):
        return
    for value, weight, (first, last) in zip(op.inputs, op.weights, columns, strict=True):
        view = low.views[value.name]
        assert value.cut is not None
        low.made.op(
            "norm_by_sums",
            f"{op.name}.{value.name}",
            (view, grid),
            (view,),
            vector=low.own_vector(weight, low.elements(value)),
            heads=view.width // value.cut.width,
            dim=value.cut.width,
            begin=first,
            end=last,
            eps=low.spec.norm_eps,
        )
