"""What the planner's parts make together: names and cards, engines and links, answers and pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bandweave.cli.plan.setup import parse_machines
from bandweave.models.known_models import known_model
from bandweave.planning.costs.software import find_software
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.hardware_text import hardware_from_text
from bandweave.planning.machines.ports import ports_of
from bandweave.planning.search.columns import engine_answer, software_setup
from bandweave.planning.search.layout import Question
from bandweave.planning.search.published import published_for
from bandweave.planning.simulation.lineup import PlannedLineup
from tests.helpers.plan_command import PlanCommand, flowing, narrow


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> PlanCommand:
    return PlanCommand(capsys)


def question(model: str, format_name: str = "q4") -> Question:
    return Question(model=known_model(model), weights=find_format(format_name))


def test_with_may_be_part_of_a_name_or_say_what_is_put_in() -> None:
    (desktop,) = parse_machines(["Framework Desktop with Ryzen AI Max 395"], [], {}).hardware
    assert desktop.kind == "apu" and not desktop.cards
    (server,) = parse_machines(["EPYC 9354 with 2x 4090"], [], {}).hardware
    assert [card.name for card in server.cards] == ["rtx-4090", "rtx-4090"]
    assert server.kind == "cpu-server" and not server.prices and server.cards[0].prices
    assert ports_of(server) == ports_of(parse_machines(["EPYC 9354"], [], {}).hardware[0])
    with pytest.raises(ValueError, match="is no card"):
        parse_machines(["epyc-9354-12ch with m3-ultra-512"], [], {})


def test_a_card_of_ones_own_is_put_into_a_machine_of_ones_own() -> None:
    own = {"box": hardware_from_text("epyc-9354-12ch,sockets=2,price=5000"),
           "rtx-4090": hardware_from_text("rtx-4090,price=1000")}  # fmt: skip
    (box,) = parse_machines(["box with 2x RTX 4090"], [], own).hardware
    assert box.sockets == 2 and box.price_usd == 7000


def test_what_others_measured_on_a_machine_with_cards() -> None:
    asked = question("deepseek-r1", "gguf-q4_k_m")

    def found(on: str) -> set[str]:
        machines = parse_machines([on], [], {}).hardware
        return {row.machines for row in published_for(asked.model, asked.weights, machines)}

    assert found("xeon-6454s-2s with rtx-4090") == {"1 x xeon-6454s-2s with rtx-4090"}
    assert not found("xeon-6454s-2s with 2x rtx-4090")
    assert all(" with " not in name for name in found("xeon-6454s-2s"))


def test_a_short_look_at_many_machines_takes_the_engines_splits_alone() -> None:
    # Seven kinds of Macs: more sets than get a close look. MLX has tensor splits only, equal ones.
    on = "m1-max-64 + m2-max-96 + m3-max-128 + m4-max-128 + m4-pro-64 + m2-ultra-192 + m1-ultra-128"
    machines = parse_machines([on], ["ethernet-10g"], {})
    answer = engine_answer(question("llama-3.1-70b"), machines, "mlx")
    assert answer is not None
    for each in answer.plans:
        assert each.kind in ("one", "tensor")
        for stage in each.deployment.stages:
            assert len(set(stage.shares)) == 1


def test_no_wider_tensor_split_than_cables_reach_whatever_the_engine() -> None:
    machines = parse_machines(["6x m4-max-128"], ["thunderbolt-5-rdma"], {})
    for name in ("mlx", "exo"):
        answer = engine_answer(question("llama-3.1-70b", "bf16"), machines, name)
        assert answer is not None
        for each in answer.plans:
            assert all(len(stage) <= 5 for stage in each.layout.stages)


def test_a_lineup_without_a_machine_keeps_what_the_engine_runs_on() -> None:
    machines = parse_machines(["m4-max-128 + 2x rtx-3090"], ["ethernet-10g"], {}, "mlx")
    asked = question("llama-3.1-8b")
    setup = software_setup(find_software("mlx"), asked, machines)
    assert setup is not None and setup.kinds == ("apple", "", "")
    lineup = PlannedLineup(asked, setup)
    assert lineup.plan(frozenset({0, 2})) is not None
    assert lineup.plan(frozenset({1, 2})) is None


def test_engines_are_named_wherever_an_answer_is_shown(plan: PlanCommand, tmp_path: Path) -> None:
    pair = ("llama-3.1-70b", "--on", "2x m3-ultra-512", "--link", "tb5-rdma")
    text = plan(*pair, "--compare", "epyc-9354-12ch with rtx-4090", "--users", "2", "--turns", "2")
    assert narrow(text)
    assert "with MLX (mlx-lm)" in flowing(text) and "with rtx-4090, with " in flowing(text)
    assert "Other software: " in text and "hardware allows" not in text
    value = json.loads(plan(*pair, "--engine", "llama.cpp", "--users", "2", "--json"))
    assert value["engine"] == "llama.cpp" and value["conversation"]["kept"]
    assert "With llama.cpp" in plan(*pair, "--engine", "llama.cpp", "--sweep", "link")
    assert "with llama.cpp: " in flowing(
        plan(*pair, "--engine", "llama.cpp", "--simulate", "--requests", "2")
    )
    page = tmp_path / "page.html"
    plan(*pair, "--html", page)
    written = page.read_text("utf-8")
    assert "MLX (mlx-lm)" in written and "Other software: " in written
    assert "the hardware allows" not in written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--list", "engines", "--engine", "mlx"), "leave out --engine"),
        (("qwen3-4b", "--on", "m4-16", "--spare", "1"), "--spare is for --simulate"),
        (("qwen3-4b", "--on", "2x m4-16", "--simulate", "--silent", "0.1"), "--uptime"),
        (("qwen3-4b", "--on", "m4-16", "--engine", "lama.cpp"), "did you mean llama.cpp"),
        (("qwen3-4b", "--on", "m4-16,sockets=3"), "sockets is"),
    ],
)
def test_mistakes(plan: PlanCommand, arguments: tuple[str, ...], words: str) -> None:
    assert words in plan.mistake(*arguments)
