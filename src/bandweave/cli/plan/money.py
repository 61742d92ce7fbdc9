"""What an answer's machines cost, and their electricity, in sentences. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from bandweave import figures
from bandweave.cli.plan.answer import Columns
from bandweave.planning.costs.economy import economy
from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.search.search import Answer


def money_sentences(columns: Columns, usd_per_kwh: float) -> list[str]:
    """Energy, and prices as far as they are known."""
    sentences = (_money(columns.limit, usd_per_kwh), _prices(columns.machines.hardware))
    return [sentence for sentence in sentences if sentence]


def _money(answer: Answer, usd_per_kwh: float) -> str:
    """Energy and price; empty where nothing is known."""
    money = economy(answer.best.deployment, answer.best.decode, usd_per_kwh=usd_per_kwh)
    words = []
    if money.watts is not None and money.joules_per_token is not None:
        words.append(
            f"about {money.watts:.0f} W, {figures.figure(money.joules_per_token)} J per token, "
            f"${money.usd_per_million_tokens:.2f} of electricity for a million tokens "
            f"(${usd_per_kwh:.2f}/kWh)"
        )
    if money.price_usd is not None and money.usd_per_token_per_s is not None:
        words.append(
            f"${money.price_usd:,.0f} for the machines, ${money.usd_per_token_per_s:,.0f} for each "
            "token/s"
        )
    return "Energy and price: " + "; ".join(words) + "." if words else ""


def _prices(machines: Sequence[Hardware]) -> str:
    """Where a machine has several prices, or one of a day that is known: all of them."""
    different = {each.name: each for one in machines for each in (one, *one.cards)}
    words = [
        f"{name} {' or '.join(str(price) for price in each.prices)}"
        for name, each in different.items()
        if len(each.prices) > 1 or any(price.date for price in each.prices)
    ]
    return f"Prices: {'; '.join(words)}." if words else ""
