"""Economy: energy and money for tokens, where watts and prices are known. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.planning.search import Plan

_JOULES_PER_KWH = 3.6e6
_SECONDS_PER_YEAR = 365.25 * 86400


@dataclass(frozen=True, kw_only=True)
class Economy:
    """None where a machine's watts or price is not known. Money in US dollars."""

    watts: float | None
    joules_per_token: float | None
    energy_usd_per_million: float | None
    price_usd: float | None
    price_usd_per_token_per_s: float | None
    total_usd_per_million: float | None  # energy, and the price over the years


def economy(plan: Plan, *, usd_per_kwh: float, years: float) -> Economy:
    """Of decoding without a pause, at the wall. Machines of the plan alone count, each at the
    watts of a machine that works: while others work it draws less, so this is an upper bound."""
    nodes, speed = plan.deployment.nodes, plan.decode.tokens_per_s
    watts = _sum([node.watts for node in nodes])
    price = _sum([node.price_usd for node in nodes])
    joules = None if watts is None else watts / speed
    energy = None if joules is None else joules * 1e6 / _JOULES_PER_KWH * usd_per_kwh
    total = None
    if energy is not None and price is not None:
        total = energy + price / (speed * years * _SECONDS_PER_YEAR) * 1e6
    return Economy(
        watts=watts,
        joules_per_token=joules,
        energy_usd_per_million=energy,
        price_usd=price,
        price_usd_per_token_per_s=None if price is None else price / speed,
        total_usd_per_million=total,
    )


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
