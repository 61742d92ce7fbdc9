"""Energy and money: joules and dollars for tokens, and for speed. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.planning.costs.cost import PrefillCost, StepCost
from bandweave.planning.costs.deployment import Deployment

_JOULES_PER_KWH = 3.6e6
#: A machine that waits, against one that works: what its makers' idle figures are about.
_IDLE_PART = 0.3


@dataclass(frozen=True, kw_only=True)
class Economy:
    """None where a node's watts or price is not known: a sum without it would mislead."""

    watts: float | None  # of all nodes, averaged over a step
    joules_per_token: float | None
    usd_per_million_tokens: float | None  # electricity alone
    price_usd: float | None
    usd_per_token_per_s: float | None  # price for speed


def economy(
    deployment: Deployment, cost: StepCost | PrefillCost, *, usd_per_kwh: float = 0.30
) -> Economy:
    """Of a decode step, or of a prefill (whose nodes count as busy).

    A node draws ``watts`` while it computes and ``idle_watts`` (a third, where unknown) while it
    waits for others."""
    idle = cost.idle if isinstance(cost, StepCost) else (0.0,) * len(deployment.nodes)
    drawn: float | None = 0.0
    price: float | None = 0.0
    for node, waiting in zip(deployment.nodes, idle, strict=True):
        if node.watts is None:
            drawn = None
        elif drawn is not None:
            resting = _IDLE_PART * node.watts if node.idle_watts is None else node.idle_watts
            drawn += node.watts * (1 - waiting) + resting * waiting
        if node.price_usd is None:
            price = None
        elif price is not None:
            price += node.price_usd
    joules = None if drawn is None else drawn / cost.tokens_per_s
    return Economy(
        watts=drawn,
        joules_per_token=joules,
        usd_per_million_tokens=None
        if joules is None
        else joules * 1e6 / _JOULES_PER_KWH * usd_per_kwh,
        price_usd=price,
        usd_per_token_per_s=None if price is None else price / cost.tokens_per_s,
    )
