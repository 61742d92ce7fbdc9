"""Lowering of a pass in which the last stage gives node 0 the normed hidden states of some rows.

Only embeddings need them: the pass is a step of its own, in which nothing else is computed, so that
answers pay nothing for it. Where one stage is all, node 0 has them itself; where a layer drafts,
the second pass is taken. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering

GIVEN = "given_hidden"


def give(low: Lowering) -> None:
    """The pass, where there is more than one stage. Each of its rows names one of the step before,
    whose residual stands on the last stage until the next step."""
    stages = low.split.stages
    if len(stages) == 1:
        return
    low.made.begin_drafting()
    giver, width = stages[-1][0], low.spec.hidden_size
    tag = len(low.graph.ops) + len(stages) + 2  # behind those of stages and logits
    if low.share.node == giver:
        assert low.last_norm is not None
        norm, residual = low.last_norm
        picked = low.made.buffer("picked_hidden", width)
        given = low.made.buffer(GIVEN, width)
        low.made.op("pick_rows", "pick_hidden", (residual,), (picked,))
        low.norm(norm, picked, given, groups=1, dim=width)
        low.made.op("send", "give_hidden", inputs=(given,), tag=tag, peers=(0,))
    elif low.share.node == 0:
        given = low.made.buffer(GIVEN, width)
        low.made.op("recv", "take_hidden", outputs=(given,), tag=tag, peers=(giver,))
