"""Speculation: how many tokens a step is worth when drafts are verified. Pure.

Source: Leviathan, Kalman and Matias 2022 (arXiv:2211.17192). ``acceptance`` is the chance that one
drafted token is accepted, given that those before it were; the ratio of accepted to drafted tokens
that engines report is another number (``acceptance_from_ratio``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bandweave.planning.costs.cost import decode_step
from bandweave.planning.costs.deployment import Deployment, Workload


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens a verified step gives: ``(1 - a^(g+1)) / (1 - a)`` for ``g`` drafted ones."""
    if not 0.0 <= acceptance <= 1.0 or drafted < 0:
        raise ValueError(f"acceptance {acceptance} of {drafted} drafted tokens makes no sense")
    # As a sum: the quotient loses its digits near 1.
    return sum(acceptance**accepted for accepted in range(drafted + 1))


def acceptance_from_ratio(ratio: float, drafted: int) -> float:
    """The acceptance that gives ``1 + drafted * ratio`` tokens a step, by bisection; ``ratio`` is
    accepted over drafted tokens."""
    if not 0.0 <= ratio <= 1.0 or drafted < 1:
        raise ValueError(f"a ratio of {ratio} of {drafted} drafted tokens makes no sense")
    target, low, high = 1.0 + drafted * ratio, 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if expected_tokens(middle, drafted) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """A way of drafting: ``draft_s`` is what one drafted token costs (0: looked up in the text)."""

    acceptance: float
    drafted: int
    draft_s: float = 0.0


def speculative_tokens_per_s(
    deployment: Deployment, workload: Workload, speculation: Speculation, case: str = "likely"
) -> float:
    """Tokens a second of all streams. A step verifies ``drafted + 1`` rows of every stream: it
    reads more experts than plain decoding, and where FLOPs bind it computes that much more."""
    rows = speculation.drafted + 1
    wide = dataclasses.replace(workload, streams=workload.streams * rows)
    step = decode_step(deployment, wide, case).period_s + speculation.drafted * speculation.draft_s
    return workload.streams * expected_tokens(speculation.acceptance, speculation.drafted) / step
