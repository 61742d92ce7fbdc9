"""How a mixture shares out its rows, and how far ahead it sees. Knows batches, no training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batches import Batch
from mixture_model import MixtureModel


@torch.no_grad()
def foreseen(model: MixtureModel, rounds: Sequence[Batch]) -> float:
    """How many tokens of the answers the further layer says one token ahead."""
    right = total = 0
    for batch in rounds:
        tokens, said = batch.tokens, batch.spoken[:, 2:]
        hidden = model.hidden(tokens[:, :-1])
        guess = model.logits(model.further(tokens[:, 1:-1], hidden[:, :-1])).argmax(-1)
        right += int(((guess == tokens[:, 2:]) & said).sum())
        total += int(said.sum())
    return right / total


def report(model: MixtureModel, rounds: Sequence[Batch]) -> str:
    """What is foreseen, and which share of the rows each expert has, layer by layer."""
    for _, router in model.routers():
        router.load.zero_()
    lines = [f"one token ahead: {100 * foreseen(model, rounds):.1f} %"]
    for name, router in model.routers():
        shares = 100 * router.load / router.load.sum()
        lines.append(f"  {name}: " + " ".join(f"{share:.1f}" for share in shares) + " %")
        router.load.zero_()
    return "\n".join(lines)
