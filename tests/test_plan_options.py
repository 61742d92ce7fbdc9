"""Options of ``plan`` do what they say in every combination, or refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bandweave.cli.plan.load import load_sentence, overloaded
from bandweave.planning.simulation.scenario import Outcome, Scenario, StageUse
from tests.helpers.plan_command import PlanCommand, flowing, narrow

MAC = ("--on", "m4-max-128")


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> PlanCommand:
    return PlanCommand(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--replicas", "2"), "--simulate"),
        (("--arrivals", "1"), "--simulate"),
        (("--seed", "1"), "--simulate"),
        (("--uptime", "1"), "--simulate"),
        (("--turns", "3"), "--users"),
        (("--reuse",), "--users"),
        (("--prefix", "100"), "--users"),
        (("--simulate", "--compare", "m4-32"), "run it once for each"),
        (("--simulate", "--sweep", "streams"), "run it once for each"),
        (("--simulate", "--html", "x.html"), "--chart draws"),
        (("--simulate", "--repair", "1"), "--uptime"),
        (("--simulate", "--requests", "5", "--seconds", "5"), "after one of them"),
        (("--sweep", "context", "--power-price", "1"), "shows no money"),
        (("--sweep", "context", "--answer", "9"), "--objective request"),
        (("--users", "2", "--streams", "3"), "--users alone"),
        (("--users", "2", "--context", "300"), "--turns"),
        (("--claims",), "leave out"),
        (("--prompt", "8000", "--context", "4096"), "does not fit into --context 4096"),
        (("--prompt", "500000"), "more than qwen3-4b takes"),
        (("--users", "2", "--turns", "1000"), "the conversation comes to"),
    ],
)
def test_what_would_be_ignored_is_refused(
    plan: PlanCommand, arguments: tuple[str, ...], words: str
) -> None:
    assert words in plan.mistake("qwen3-4b", *MAC, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [("--compare", "m4-32"), ("--sweep", "context"), ("--simulate",), ("--html", "x.html"),
     ("--users", "2"), ("--power-price", "1"), ("--answer", "5")],
)  # fmt: skip
def test_what_needs_a_model_says_so(plan: PlanCommand, arguments: tuple[str, ...]) -> None:
    assert "needs a MODEL" in plan.mistake(*MAC, *arguments)


def test_a_prompt_is_never_cut(plan: PlanCommand) -> None:
    value = json.loads(plan("llama-3.1-8b", *MAC, "--prompt", "8000", "--json"))
    assert (value["prompt"], value["context"]) == (8000, 8512)
    text = plan("llama-3.1-8b", *MAC, "--prompt", "8000", "--answer", "1000")
    assert "9000 tokens of context" in text and "prompts of 8000 tokens" in flowing(text)
    arguments = ("--simulate", "--prompt", "8000", "--requests", "1", "--json")
    assert json.loads(plan("llama-3.1-8b", *MAC, *arguments))["scenario"]["prompt"] == 8000
    short = json.loads(plan("llama-3.1-8b", *MAC, "--context", "512", "--json"))
    assert (short["prompt"], short["context"]) == (512, 512)


def test_models_that_take_less_context_are_named(plan: PlanCommand) -> None:
    value = json.loads(plan(*MAC, "--context", "100000", "--json"))
    shown = {row["model"] for row in value["models"]}
    assert "llama-2-7b" in value["take_less_context"] and "llama-2-7b" not in shown


def test_a_comparison_begins_with_its_table(plan: PlanCommand) -> None:
    text = plan("llama-3.1-8b", *MAC, "--compare", "rtx-4090", "--compare", "m4-16")
    lines = text.splitlines()
    table = next(index for index, line in enumerate(lines) if line.startswith("---"))
    assert table < 12
    assert "is the quickest" in text and "A in full:" in text
    assert text.index("is the quickest") < text.index("A in full:")
    assert text.count("llama-3.1-8b in q4:") == 1
    assert narrow(text)


def test_a_first_setup_that_does_not_fit_answers_for_the_others(plan: PlanCommand) -> None:
    arguments = ("deepseek-r1", "--on", "m3-ultra-512", "--format", "fp8", "--compare",
                 "8x h200 over nvlink")  # fmt: skip
    text = plan(*arguments)
    assert "A does not fit:" in text and "B in full:" in text and narrow(text)
    value = json.loads(plan(*arguments, "--json"))
    assert value["fits"] is False and "too little" in value["shortage"]
    assert value["compared"][0]["fits"] is True
    assert list(value["does_not_fit"]) == ["m3-ultra-512"]
    sentence = plan.mistake("deepseek-r1", "--on", "m4-16", "--compare", "m4-32")
    assert "A: " in sentence and "B: " in sentence


def test_a_link_of_one_machine_is_not_passed_over_in_silence(plan: PlanCommand) -> None:
    plan("llama-3.1-8b", *MAC, "--link", "tb5-rdma")
    assert "needs no link" in plan.remarks
    plan("llama-3.1-8b", *MAC, "--link", "tb5-rdma", "--compare", "2x m4-max-128")
    assert plan.remarks == ""


def test_streams_say_what_each_gets_and_how_many_fit(plan: PlanCommand) -> None:
    text = plan("llama-3.1-8b", *MAC, "--streams", "8")
    assert "for each stream" in text and "Memory holds" in text
    value = json.loads(plan("llama-3.1-8b", *MAC, "--streams", "8", "--json"))
    most = value["hardware"]["most_streams"]
    plan("llama-3.1-8b", *MAC, "--streams", str(most))
    assert "too little" in plan.mistake("llama-3.1-8b", *MAC, "--streams", str(most + 3))
    text = plan("llama-3.1-8b", *MAC, "--sweep", "streams")
    assert " each " in text and f"Memory holds {most} streams" in text


def test_a_request_is_counted(plan: PlanCommand) -> None:
    value = json.loads(plan("llama-3.1-8b", *MAC, "--answer", "100", "--json"))["hardware"]
    waited = value["first_token_s"] + 100 / value["decode_tokens_per_s"]["likely"]
    assert value["request_s"]["likely"] == pytest.approx(waited)
    assert value["request_s"]["low"] < waited < value["request_s"]["high"]


@pytest.mark.parametrize("objective", ["prefill", "request"])
def test_sweeps_show_what_the_objective_asks(plan: PlanCommand, objective: str) -> None:
    text = plan("llama-3.1-8b", *MAC, "--sweep", "format", "--objective", objective)
    assert ("Reading prompts" if objective == "prefill" else "seconds") in text and narrow(text)


def test_overload_is_said_in_words(plan: PlanCommand) -> None:
    arguments = ("gpt-oss-120b", "--on", "dgx-spark", "--streams", "4", "--simulate", "--answer",
                 "400", "--seconds", "600")  # fmt: skip
    text = flowing(plan(*arguments, "--arrivals", "2"))
    assert "Overloaded: 2 requests/s arrive, and it serves" in text
    assert "replicas like this would keep up" in text
    value = json.loads(plan(*arguments, "--arrivals", "2", "--json"))
    assert value["overloaded"] is True and value["served_per_s"] < 2
    calm = plan(*arguments, "--arrivals", "0.01")
    assert "It keeps up" in calm and narrow(calm)


def test_no_finished_request_is_said(plan: PlanCommand) -> None:
    text = plan("deepseek-r1", "--on", "2x m3-ultra-512", "--simulate", "--answer", "4000",
                "--seconds", "20")  # fmt: skip
    assert "No request was finished" in text and "--seconds, 200" in flowing(text)


def test_a_simulation_that_ends_early_says_so(
    plan: PlanCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bandweave.planning.simulation.simulation._MOST_EVENTS", 100)
    text = flowing(plan("llama-3.1-8b", *MAC, "--simulate", "--seconds", "50"))
    assert "before there were too many events" in text and "Give more --seconds" not in text


@pytest.mark.parametrize("waiting", [0, 5, 400])
def test_load(waiting: int) -> None:
    scenario = Scenario(streams=4, prompt=10, answer=10, context=100, arrivals_per_s=1.0)
    outcome = Outcome(
        seconds=1000.0, tokens=0, requests=1000 - waiting, waiting=waiting, gaps_s=(),
        first_tokens_s=(), stages=(StageUse(replica=0, stage=0, nodes=("x",), utilisation=0.9),),
        failures=0, recomputed_tokens=0, available=1.0, events=0, cut_short=False,
    )  # fmt: skip
    over = overloaded(scenario, outcome, 1)
    assert over == (waiting == 400)
    words = load_sentence(scenario, outcome, 1)
    assert words.startswith("Overloaded" if over else "It keeps up")
    if over:
        assert f"about {math.ceil(1.1 / 0.6)} replicas" in words


def test_files_that_cannot_be_written_are_refused_first(plan: PlanCommand, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for option, name, words in (
        ("--chart", "x.gif", "end in .png"),
        ("--chart", "nowhere/x.png", "there is no folder"),
        ("--html", "x.txt", "end in .html"),
        ("--html", "nowhere/x.html", "there is no folder"),
    ):
        assert words in plan.mistake("qwen3-4b", *MAC, option, tmp_path / name)
