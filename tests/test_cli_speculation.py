"""Speculation, stop strings and bills through the command line: real processes, one answer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cli.options import engine_options
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.serving.session import open_session
from tests.helpers.command import bandweave

QUESTION = ("--prompt", "What is 17 + 25?")
LONG = ("--raw", "--prompt", "17 + 25 = 17 + 25 = 17 + 25 = 17 +", "--max-tokens", "48")


def run_json(*arguments: str | Path) -> Any:
    return bandweave("run", "demo", *arguments, "--json").json


def heart(found: Any) -> tuple[Any, ...]:
    return tuple(found[name] for name in ("text", "tokens", "logits_digest", "finish_reason"))


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The answers of one node that speculates not, by what is asked of them."""
    warm = ("--temperature", "0.8", "--seed", "3", "--presence-penalty", "0.2")
    return {"greedy": run_json(*LONG), "warm": run_json(*LONG, *warm)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "how",
    [
        "--speculate",
        "--speculate --nodes 3 --threads 1",
        "--draft demo --draft-tokens 3",
        "--draft demo --shares 2,1 --threads 2",
        "--speculate --nodes 2 --stages 2",
    ],
)
def test_speculation_gives_the_plain_answer(plain: dict[str, Any], how: str) -> None:
    found = run_json(*LONG, *how.split())
    assert heart(found) == heart(plain["greedy"])
    timing = found["timing"]
    assert timing["drafted_tokens"] >= timing["accepted_tokens"] >= 0
    assert timing["decode_steps"] == timing["decode_tokens"] - timing["accepted_tokens"]
    if "draft" in how:
        assert timing["accepted_tokens"] > 0 and timing["drafting_seconds"] > 0
    warm = ("--temperature", "0.8", "--seed", "3", "--presence-penalty", "0.2")
    assert heart(run_json(*LONG, *warm, *how.split())) == heart(plain["warm"])


@pytest.mark.late
def test_bench_says_what_was_drafted() -> None:
    arguments = ("bench", "demo", "--prompt-tokens", "20", "--new-tokens", "24", "--rounds", "1",
                 "--draft", "demo")  # fmt: skip
    found = bandweave(*arguments, "--json").json
    # Whether a model pays as its own draft is for the clock to say.
    assert found["drafted_tokens"] >= found["accepted_tokens"] >= 0
    assert found["bill"]["drafting"] > 0


def test_run_says_what_was_drafted() -> None:
    shown = bandweave("run", "demo", *QUESTION, "--draft", "demo", "--verbose")
    assert "right]" in shown.err and "drafting" in shown.err
    assert max(map(len, shown.err.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--draft-tokens", "4"), "--draft-tokens is for --speculate"),
        (("--speculate", "--draft-tokens", "0"), "drafts of 0 tokens"),
        (("--draft", "demmo"), "demmo does not exist"),
    ],
)
def test_mistakes_end_in_a_sentence(arguments: tuple[str, ...], words: str) -> None:
    done = bandweave("run", "demo", *QUESTION, *arguments)
    assert (done.status, done.out) == (2, "") and words in done.err
    assert len(done.err.splitlines()) == 1


def test_a_draft_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    assert bandweave("synth", "tiny", tmp_path / "tiny").status == 0
    done = bandweave("run", "demo", *QUESTION, "--draft", tmp_path / "tiny")
    assert done.status == 2 and "same vocabulary" in done.err


def test_a_draft_model_counts_as_memory_of_node_0() -> None:
    shares = (Fraction(1), Fraction(1))
    plain = EngineOptions(shares=shares)
    drafting = EngineOptions(
        shares=shares, run=RunOptions(speculate="draft"), draft=str(demo_folder())
    )
    with Folder.open(demo_folder()) as folder:
        split = make_split(folder.spec, shares)
        before, after = (node_needs(folder, split, one, 512) for one in (plain, drafting))
    assert after[0].weight_bytes > 2 * before[0].weight_bytes
    assert after[0].kv_bytes > 2 * before[0].kv_bytes
    assert after[1] == before[1]


def test_threads_of_one_process_draft_too() -> None:
    options = EngineOptions(run=RunOptions(speculate="draft"), draft=str(demo_folder()))
    params = SamplingParams(temperature=0, max_tokens=12)
    request = Request(tokens=(5, 6, 7, 5, 6), params=params)
    with Folder.open(demo_folder()) as folder:
        with Engine.start(folder, options, ThreadLauncher()) as engine:
            first = engine.generate([request], digest=True)[0]
        with Engine.start(folder, EngineOptions(), ThreadLauncher()) as engine:
            second = engine.generate([request], digest=True)[0]
    assert (first.tokens, first.digests) == (second.tokens, second.digests)
    assert first.timing.drafted_tokens > 0 == second.timing.drafted_tokens


# --- one generation is enough ---


def test_a_stop_string_takes_one_generation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    generate = Engine.generate

    def counted(self: Engine, *arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        return generate(self, *arguments, **more)

    monkeypatch.setattr(Engine, "generate", counted)
    names = ("nodes", "shares", "hosts", "token_file", "threads", "context", "isa", "speculate",
             "draft", "draft_tokens", "emulate_link")  # fmt: skip
    values = dict.fromkeys(names, None)
    options = engine_options(
        {
            **values,
            "stages": 1,
            "weight_format": "q4",
            "kv_format": "f16",
            "no_cache": True,
            "wire": "exact",
            "encrypt": None,
            "patience": 60.0,
        }
    )
    with open_session("demo", options) as session:
        tokens = session.tokenizer.encode("17 + 25 = ")
        params = SamplingParams(temperature=0, max_tokens=40)
        whole = session.answer(tokens, params, digest=True)
        stop = whole.text[3:5]
        calls.clear()
        cut = session.answer(
            tokens, SamplingParams(**{**vars(params), "stop": (stop,)}), digest=True
        )
        assert len(calls) == 1 and len(cut.tokens) < len(whole.tokens)
        short = SamplingParams(temperature=0, max_tokens=len(cut.tokens))
        assert session.answer(tokens, short, digest=True).logits_digest == cut.logits_digest
        assert cut.logits_digest != whole.logits_digest


def test_one_token_has_no_rate() -> None:
    found = run_json(*QUESTION, "--max-tokens", "1")
    assert found["timing"]["decode_tokens_per_s"] is None
    shown = bandweave("run", "demo", *QUESTION, "--max-tokens", "1").err
    assert "[1 token on 1 node; prompt " in shown and " 0 tokens/s" not in shown


# --- the bill ---


@pytest.mark.parametrize(
    "how", ["--nodes 1", "--nodes 2", "--nodes 2 --stages 2", "--nodes 2 --draft demo"]
)
@pytest.mark.parametrize("sampling", ["", "--temperature 0.7 --repetition-penalty 1.2"])
def test_the_items_of_a_token_add_up_to_its_wall_time(how: str, sampling: str) -> None:
    arguments = (*LONG, *how.split(), *sampling.split(), "--threads", "1", "--context", "256")
    found = run_json(*arguments)
    timing = found["timing"]
    wall = timing["decode_seconds"] / timing["decode_tokens"]
    for node in found["bill"]["nodes"]:
        items = {key: value for key, value in node.items() if key not in ("name", "wall")}
        assert min(items.values()) >= 0 and node["wall"] == pytest.approx(wall)
        assert sum(items.values()) == pytest.approx(wall, rel=0.02)
    sampled = timing["sampling_seconds"] / timing["decode_tokens"]
    assert found["bill"]["sampling"] == pytest.approx(sampled)
