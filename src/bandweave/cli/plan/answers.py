"""``plan`` for one setup or several: computed, then shown, drawn, written as a page or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.answer import Setups, answer_setups, columns_json
from bandweave.cli.plan.setup import conversation_of
from bandweave.cli.plan.talk import show_conversations
from bandweave.planning.search.columns import Machines
from bandweave.planning.search.conversation import ConversationCost, conversation_cost
from bandweave.planning.search.layout import Question


def show_answers(
    question: Question, machines: Sequence[Machines], values: dict[str, Any], *, as_json: bool
) -> None:
    """Every setup that holds the model, and by how much the others do not; ``ValueError`` where
    none does."""
    from bandweave.cli.plan.comparison import show_comparison
    from bandweave.cli.plan.report import show

    price: float = values["power_price"]
    with output.status("Looking for the best split"):
        setups = answer_setups(question, machines)
    talk = conversation_of(values)
    costs, own = {}, {}
    for entry in setups.entries:
        if talk is None or entry.columns is None:
            continue
        costs[entry.letter] = conversation_cost(entry.columns.limit.plans, talk)
        today = None if entry.columns.hypothetical else entry.columns.today
        if today is not None:
            own[entry.letter] = conversation_cost(today.plans, talk)
    if values["chart"]:
        _draw(setups, costs, values)
    if values["page"]:
        from bandweave.cli.plan.page import write_page

        write_page(setups, costs, values)
    if as_json:
        output.print_json(_json(setups, costs, own, price))
        return
    if len(setups.entries) > 1:
        show_comparison(setups, price)
    for entry in setups.entries:
        if entry.columns is not None:
            if len(setups.entries) > 1:
                output.print_text()
                output.print_text(f"{entry.letter} in full:")
            show(entry.columns, price, heading=len(setups.entries) == 1)
            break
    if costs:
        show_conversations(setups, costs, own)


def _draw(setups: Setups, costs: dict[str, ConversationCost], values: dict[str, Any]) -> None:
    if not costs:
        from bandweave.cli.plan.pictures.overview import draw_answer

        draw_answer(setups, values["chart"])
        return
    from bandweave.cli.plan.pictures.talks import draw_conversations

    draw_conversations(setups, costs, values["chart"])


def _json(
    setups: Setups,
    costs: dict[str, ConversationCost],
    own: dict[str, ConversationCost],
    price: float,
) -> dict[str, Any]:
    """The first setup, with the others beside it."""
    shown = []
    for entry in setups.entries:
        if entry.columns is not None:
            value = columns_json(entry.columns, price) | {"fits": True}
        else:
            value = {
                "fits": False,
                "shortage": entry.shortage,
                "machines": [machine.name for machine in entry.machines.hardware],
                "links": [link.name for link in entry.machines.links],
            }
        if entry.letter in costs:
            value["conversation"] = {
                **asdict(costs[entry.letter].conversation),
                **_talk_json(costs[entry.letter]),
                "bandweave": _talk_json(own[entry.letter]) if entry.letter in own else None,
            }
        shown.append(value)
    first, *others = shown
    if others:
        first["compared"] = [each for each in others if each["fits"]]
        first["does_not_fit"] = {
            entry.machines.title: entry.shortage for entry in setups.entries if entry.shortage
        }
    return first


def _talk_json(cost: ConversationCost) -> dict[str, Any]:
    return {
        "seconds": cost.seconds,
        "kept": [asdict(turn) for turn in cost.kept],
        "read_again": [asdict(turn) for turn in cost.again],
    }
