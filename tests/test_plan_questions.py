"""Questions as buyers ask them: answers that do not mislead about what is bought."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bandweave.cli.plan.answer import answer_columns
from bandweave.cli.plan.money import money_sentences
from bandweave.cli.plan.report import reasons
from bandweave.cli.plan.setup import parse_machines
from bandweave.models.known_models import known_model
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.deployment import BANDWEAVE
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.ports import own_link_name, remote_memory_link
from bandweave.planning.search.columns import (
    Machines,
    bandweave_setup,
    both_columns,
    engine_answer,
)
from bandweave.planning.search.layout import Question
from tests.helpers.plan_command import PlanCommand


def machines(on: str, *links: str, engine: str = "any") -> Machines:
    return parse_machines([on], list(links), {}, engine)


def question(model: str, format_name: str = "q4", streams: int = 1) -> Question:
    return Question(model=known_model(model), weights=find_format(format_name), streams=streams)


@pytest.mark.parametrize(
    ("model", "on", "streams", "words"),
    [
        ("gemma-3-27b", "arc b580", 1, "GiB too little"),
        ("mistral-large-2", "a100 80gb", 16, "with 8 streams"),
    ],
)
def test_what_a_card_does_not_hold_is_refused(
    model: str, on: str, streams: int, words: str
) -> None:
    """The host that a card is assumed to sit in is no answer to what the card does."""
    asked, there = question(model, streams=streams), machines(on)
    with pytest.raises(ValueError, match=words) as refusal:
        answer_columns(asked, there)
    card = there.hardware[0]
    assert f"{card.host} with 1x {card.name}" in str(refusal.value)
    limit, today = both_columns(asked, there)
    assert limit is None and today is not None
    # Whoever asks for bandweave gets what it does there.
    own = answer_columns(asked, machines(on, engine="bandweave"))
    assert own.engine == BANDWEAVE.name


def test_models_that_only_a_host_holds_are_named_apart(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(PlanCommand(capsys)("--on", "rtx-pro-6000", "--json"))
    fitting = {row["model"]: row for row in found["models"]}
    assert "kimi-k2" not in fitting and "kimi-k2" in found["fit_in_host_memory"]
    assert fitting["mistral-large-2"]["format"] == "q4"
    assert all(row["engine"] != BANDWEAVE.name for row in found["models"])


def test_what_is_assumed_of_bandweave_does_not_win_over_measurements() -> None:
    asked, there = question("qwen3-4b", "q8"), machines("epyc-9755-12ch")
    today = engine_answer(asked, there, BANDWEAVE.name)
    limit, own = both_columns(asked, there)
    assert limit is not None and today is not None and own == today
    assert limit.setup.engine.name != BANDWEAVE.name
    # Rates of this very machine decide.
    setup = bandweave_setup(there)
    assert setup is not None
    rates = setup.nodes[0]
    quick = {name: rate.times(10) for name, rate in rates.weight_bytes_per_s.items()}
    probed = replace(there, profiled=(replace(rates, weight_bytes_per_s=quick),))
    measured, own = both_columns(asked, probed, [limit])
    assert measured is not None and measured == own
    assert measured.setup.engine.name == BANDWEAVE.name


def test_one_machine_has_no_link() -> None:
    columns = answer_columns(question("deepseek-v3"), machines("epyc-9555-12ch with 1x rtx-5090"))
    words = " ".join(reasons(columns))
    assert "The link" not in words
    assert "Crossing to the cards and back takes" in words


@pytest.mark.parametrize("engine", ["vllm", "sglang", "exo"])
def test_unlike_machines_share_no_tensor_split_in_equal_halves(engine: str) -> None:
    asked = question("qwen3-32b")
    on = ("rtx-4090", "rtx-3090") if engine != "exo" else ("m4-max-128", "m4-pro-64")
    link = "pcie-4" if engine != "exo" else "thunderbolt-5-rdma"
    alike = engine_answer(asked, machines(f"2x {on[1]}", link), engine)
    unlike = engine_answer(asked, machines(f"{on[0]} + {on[1]}", link), engine)
    assert alike is not None and any(plan.kind == "tensor" for plan in alike.plans)
    assert unlike is not None and all(plan.kind != "tensor" for plan in unlike.plans)


def test_a_cable_is_as_fast_as_both_of_its_machines_can() -> None:
    macs = machines("2x m3-ultra-512", "thunderbolt 5")
    assert [link.name for link in macs.links] == ["thunderbolt-5-rdma"]
    assert machines("2x m3-ultra-512", "thunderbolt-5-tcp").links[0].name == "thunderbolt-5-tcp"
    older = machines("m3-ultra-512 + m4-pro-64", "tb5")
    assert older.links[0].name in ("thunderbolt-5-rdma", "thunderbolt-5-tcp")
    assert own_link_name("ethernet-10g", macs.hardware) is None
    assert remote_memory_link("ethernet-10g", macs.hardware) is None


def test_ports_that_do_more_are_told() -> None:
    asked, sparks = question("gpt-oss-120b"), machines("2x dgx-spark", "200GbE")
    assert "Over roce-200g" in " ".join(reasons(answer_columns(asked, sparks)))
    by_rdma = answer_columns(asked, machines("2x dgx-spark", "roce-200g"))
    assert "Over roce" not in " ".join(reasons(by_rdma))
    macs = answer_columns(question("deepseek-r1"), machines("2x m3-ultra-512", "thunderbolt-5-tcp"))
    assert "Over thunderbolt-5-rdma" in " ".join(reasons(macs))


def test_what_nobody_has_published_is_less_sure() -> None:
    asked = question("llama-3.1-405b")
    over = {}
    for link in ("ethernet-10g", "thunderbolt-5-rdma"):
        columns = answer_columns(asked, machines("4x m3-ultra-512", link, engine="mlx"))
        plan = next(plan for plan in columns.limit.plans if plan.kind == "tensor")
        speed = decode_range(plan.deployment, asked.decoding)
        over[link] = speed.high / speed.low
        said = "Nobody has published" in " ".join(reasons(columns))
        assert said == (link == "ethernet-10g" and columns.limit.best.kind == "tensor")
    assert over["ethernet-10g"] > 1.5 * over["thunderbolt-5-rdma"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("8gb rtx 4060 laptop", "rtx-4060-laptop"),
        ("rtx 4070 laptop", "rtx-4070-laptop"),
        ("laptop 4080 12gb", "rtx-4080-laptop"),
        ("rtx 4050 laptop", "rtx-4050-laptop"),
        ("rtx 4060", "rtx-4060"),
    ],
)
def test_laptops_cards_are_found(words: str, name: str) -> None:
    assert machines(words).hardware[0].name == name


def test_prices_are_of_today_where_they_are_known() -> None:
    for on, price in (("framework desktop 128gb", 2459), ("raspberry pi 5 16gb", 205)):
        there = machines(on)
        assert there.hardware[0].price_usd == price
        words = " ".join(money_sentences(answer_columns(question("qwen3-4b"), there), 0.3))
        assert "J per token" in words and f"${price:,} for the machines" in words
        assert "2026" in words


def test_an_unknown_link_says_how_to_find_one() -> None:
    with pytest.raises(ValueError, match="no link is called 'foo'; `plan --list links WORDS`"):
        find_link("foo")
    with pytest.raises(ValueError, match="did you mean"):
        find_link("thunderbold-5")
