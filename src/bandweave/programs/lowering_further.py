"""Lowering of the layer that predicts further tokens, whose operations are a pass of their own.

The pass is the last stage's, where the hidden states are that it begins with: the last norm is of
all rows then, and they stay until the next step. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bandweave.models.graph_op import GraphOp

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def draft(low: Lowering, ops: Sequence[tuple[int, GraphOp]]) -> None:
    """The pass that drafts. Node 0 has embedding rows to give and tokens to take wherever it
    is."""
    low.made.begin_drafting()
    low.group = low.split.stages[-1]
    if low.share.node in low.group:
        for tag, op in ops:
            low.emit(tag, op)
    elif low.share.node == 0:
        low.emit(*ops[0])
        low.gather(drafts=True)
    low.made.layer = None


def kept_norm(low: Lowering, op: GraphOp) -> None:
    """A last norm, of all rows; only those that ask for logits go on."""
    (x,), (y,) = op.inputs, op.outputs
    kept = low.made.buffer(y.name, y.width)
    low.norm(op, low.views[x.name], kept, groups=1, dim=x.width)
    taken = low.views[y.name] = low.made.buffer("y_taken", y.width, rows="logits")
    low.made.op("take_rows", "take_rows", (kept,), (taken,))


def pick_rows(low: Lowering, op: GraphOp) -> None:
    (value,), (out,) = op.inputs, op.outputs
    kept, own = (low.made.buffer(one.name, one.width) for one in (value, out))
    low.views[out.name] = own
    low.made.op("pick_rows", op.name, (kept,), (own,))


def norm_beside(low: Lowering, op: GraphOp) -> None:
    """A norm whose result lies beside others in one buffer."""
    (value,), (both,) = op.inputs, op.outputs
    whole = low.views[both.name] = low.made.buffer(both.name, both.width)
    offset = op.attributes["offset"]
    assert isinstance(offset, int)
    target = replace(whole, offset=offset, width=value.width)
    low.norm(op, low.views[value.name], target, groups=1, dim=value.width)
