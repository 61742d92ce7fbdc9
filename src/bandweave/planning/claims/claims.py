"""Claims: what people said about linking two desktop machines, and what the planner says to it.

The claims lie in ``data/claims.json``, in the planner's words. Every verdict follows from figures
that ``claim_checks`` computes, so that a better catalogue or calibration changes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from bandweave.planning.claims.claim_checks import CHECKS, R1, ULTRA, planned, split_plans
from bandweave.planning.machines.rates import Estimate, LinkRates


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim with the command that checks it, and what comes out."""

    number: int
    claim: str
    command: str
    verdict: str
    reason: str


def check_claims() -> tuple[Claim, ...]:
    """All claims with their verdicts."""
    text = resources.files("bandweave.planning").joinpath("data/claims.json").read_text("utf-8")
    result = []
    for row in json.loads(text):
        verdict, reason = CHECKS[row["number"]]()
        result.append(
            Claim(
                number=row["number"],
                claim=row["claim"],
                command=row["command"],
                verdict=verdict,
                reason=" ".join(reason.split()),
            )
        )
    return tuple(result)


@dataclass(frozen=True, kw_only=True)
class LinkEffect:
    name: str
    latency_us: float
    gb_per_s: float
    tokens_per_s: float


def link_effects() -> tuple[LinkEffect, ...]:
    """R1 in 4 bits over links of all four kinds: quick or slow to answer, wide or narrow."""
    result = []
    for name, latency_us, rate in (
        ("wide and quick", 15, 8.8), ("narrow, but quick", 15, 1.1),
        ("wide, but slow to answer", 300, 8.8), ("narrow and slow to answer", 300, 1.1),
    ):  # fmt: skip
        link = LinkRates(
            name=name,
            latency_s=Estimate.exactly(latency_us * 1e-6),
            bytes_per_s=Estimate.exactly(rate * 1e9),
        )
        plans = split_plans(link)
        # Whether or not one machine would do better: it is the link that is looked at.
        speed = next(plan for plan in plans if plan.kind == "tensor").decode.tokens_per_s
        result.append(
            LinkEffect(name=name, latency_us=latency_us, gb_per_s=rate, tokens_per_s=speed)
        )
    return tuple(result)


def one_machine_speed() -> float:
    """R1 in 4 bits on one M3 Ultra, tokens/s."""
    return planned(R1, "q4", (ULTRA,)).best.decode.tokens_per_s
