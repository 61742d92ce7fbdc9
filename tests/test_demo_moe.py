"""The bundled mixture of experts: right answers, one answer, and its own layer as a drafter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cli.questions import load_questions
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.layer_drafter import LayerDrafter
from bandweave.models.attention_spec import LatentSpec
from bandweave.models.mlp_spec import MixtureSpec, MlpSpec
from bandweave.models.registry import build_graph
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.command import bandweave
from tests.helpers.native_nodes import NativeNodes

MODEL = "demo-moe"
ASKED = ("--prompt", "What is 157 + 355?", "--max-tokens", "24", "--context", "128")


@pytest.fixture(scope="module")
def folder() -> Iterator[Folder]:
    with Folder.open(demo_folder(MODEL)) as folder:
        yield folder


def requests(folder: Folder, **params: float) -> list[Request]:
    """The questions that come with the model, greedy where nothing else is said."""
    tokenizer = Tokenizer.from_folder(folder.path)
    template = ChatTemplate.from_folder(folder.path, tokens=tokenizer.named_tokens)
    asked = SamplingParams(**{"temperature": 0, "max_tokens": 128, **params})  # type: ignore[arg-type]
    return [
        Request(
            tokens=tuple(
                tokenizer.encode(template.render(question.messages), special_tokens=False)
            ),
            params=asked,
            end_tokens=frozenset(tokenizer.eos_token_ids),
        )
        for question in load_questions(folder.path)
    ]


def answers(folder: Folder, nodes: int, weight_format: str, speculate: str = "off") -> list[Result]:
    run = RunOptions(weight_format=weight_format, streams=9, context=256, speculate=speculate)
    options = EngineOptions(shares=(Fraction(1),) * nodes, run=run, threads=1)
    with Engine.start(folder, options, ThreadLauncher()) as engine:
        return engine.generate(requests(folder), digest=True)


def hearts(results: list[Result]) -> list[tuple[object, ...]]:
    return [(one.tokens, one.logits_digest) for one in results]


def test_it_is_of_deepseeks_kind(folder: Folder) -> None:
    spec = folder.spec
    assert isinstance(spec.layers[0].mlp, MlpSpec)
    assert {type(one.mlp) for one in spec.layers[1:]} == {MixtureSpec}
    assert {type(one.attention) for one in spec.layers} == {LatentSpec}
    assert spec.further == spec.layers[-1]
    router = spec.layers[-1].mlp.router  # type: ignore[union-attr]
    assert router.scoring == "sigmoid" and router.correction and router.top_groups < router.groups


@pytest.mark.parametrize("weight_format", ["q4", "bf16"])
def test_its_answers_are_right_and_the_same_on_any_nodes(
    folder: Folder, weight_format: str
) -> None:
    tokenizer = Tokenizer.from_folder(folder.path)
    alone = answers(folder, 1, weight_format)
    right = [
        question.is_right(tokenizer.decode(one.tokens))
        for question, one in zip(load_questions(folder.path), alone, strict=True)
    ]
    assert all(right), right
    assert hearts(answers(folder, 3, weight_format)) == hearts(alone)
    assert hearts(answers(folder, 2, weight_format, "mtp")) == hearts(alone)


def test_most_of_what_its_layer_guesses_is_right(folder: Folder) -> None:
    graph = build_graph(folder.spec, further=True)
    with NativeNodes(folder.spec, folder, num_pages=36, graph=graph) as nodes:
        embeddings, exp = nodes.embeddings, _native.exp
        drafter = LayerDrafter(
            nodes.nodes[0], lambda tokens: embeddings[tokens], exp=lambda x: exp(x).reshape(-1)
        )
        found = [
            Generator(
                nodes.nodes[0], lambda tokens: embeddings[tokens], num_pages=36, context=256,
                max_rows=256, vocab_size=folder.spec.vocab_size,
                exp=lambda x: exp(x).reshape(-1),
                speculation=Speculation(drafter, draft_tokens=most, adaptive=False),
            ).run(requests(folder))
            for most in (1, 3)
        ]  # fmt: skip
    assert [one.tokens for one in found[0]] == [one.tokens for one in found[1]]
    timings = [[one.timing for one in results] for results in found]
    accepted, drafted = (
        [sum(getattr(one, name) for one in of) for of in timings]
        for name in ("accepted_tokens", "drafted_tokens")
    )
    per_step = [
        sum(one.decode_tokens for one in of) / sum(one.decode_steps for one in of) for of in timings
    ]
    print(f"accepted {accepted} of {drafted}, {per_step[0]:.2f} and {per_step[1]:.2f} a step")
    assert accepted[0] > 0.75 * drafted[0]
    assert 1.75 < per_step[0] < per_step[1]


def test_its_layer_takes_memory_only_where_it_drafts(folder: Folder) -> None:
    shares = (Fraction(1), Fraction(1))
    split = make_split(folder.spec, shares)
    plain, drafting = (
        node_needs(folder, split, EngineOptions(shares=shares, run=run), 512)
        for run in (RunOptions(), RunOptions(speculate="mtp"))
    )
    for before, after in zip(plain, drafting, strict=True):
        assert 1.15 < after.weight_bytes / before.weight_bytes < 1.4
        assert after.kv_bytes == 5 / 4 * before.kv_bytes


def test_commands_draft_with_it() -> None:
    sampling = ("--temperature", "0.8", "--seed", "3", "--presence-penalty", "0.2")
    plain, drafting = (
        bandweave("run", MODEL, *ASKED, *sampling, *more.split(), "--json").json
        for more in ("", "--speculate mtp --nodes 2 --threads 1")
    )
    for name in ("text", "tokens", "logits_digest", "finish_reason"):
        assert plain[name] == drafting[name]
    timing = drafting["timing"]
    assert timing["decode_steps"] == timing["decode_tokens"] - timing["accepted_tokens"]
    assert timing["drafting_seconds"] > 0
    for node in drafting["bill"]["nodes"]:
        items = [value for key, value in node.items() if key not in ("name", "wall")]
        assert min(items) >= 0 and sum(items) == pytest.approx(node["wall"], rel=0.02)


def test_the_demo_shows_it_on_three_nodes() -> None:
    found = bandweave("demo", "--model", MODEL, "--max-tokens", "20", "--json").json
    assert found["same_answer"] and len(found["plan"]["nodes"]) == 3
    assert found["model"] == MODEL


def test_models_without_such_a_layer_say_what_to_use_instead(tmp_path: Path) -> None:
    done = bandweave("run", "demo", *ASKED, "--speculate", "mtp")
    assert done.status == 2 and "no layer that predicts further tokens" in done.err
    assert "--speculate ngram" in done.err and len(done.err.splitlines()) == 1
    # A copy that lacks one tensor of the layer runs without it.
    copy = Path(shutil.copytree(demo_folder(MODEL), tmp_path / "copy"))
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"layers.4.enorm.", b"layers.9.enorm.", 1))
    with Folder.open(copy) as folder:
        assert folder.spec.further is None
        assert not any(name.startswith("layers.4.") for name in folder.names())
    done = bandweave("run", copy, *ASKED, "--speculate", "mtp", "--draft", "demo")
    assert done.status == 2 and "two ways to guess" in done.err
