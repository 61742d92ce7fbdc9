"""Several steps under way, one for each stage: no byte of an answer shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import Step, StepError
from bandweave.executors.last_hidden import LastHidden
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.weights.loading import load_weights
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import (
    ODD_SPECS,
    MemorySource,
    random_source,
    random_tensors,
    tiny_spec,
)
from tests.helpers.reference_nodes import Book
from tests.helpers.scripted_drafter import ScriptedDrafter

SPECS = {"dense": tiny_spec(num_layers=4), "hybrid": ODD_SPECS["states"]}
CONTEXT, NUM_PAGES, NUM_STATES = 256, 24, 14
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
WARM = SamplingParams(temperature=0.9, top_p=0.9, repetition_penalty=1.1, seed=5, max_tokens=15)


def asks(spec: ModelSpec) -> list[Request]:
    words = np.random.default_rng(3).integers(0, spec.vocab_size, size=400).tolist()
    return [
        Request(
            tokens=tuple(words[i : i + 3 + 11 * i]),
            params=replace(WARM, seed=i) if i % 2 else GREEDY,
            embeds=i in (1, 4),
        )
        for i in range(8)
    ]


@contextmanager
def generator(
    spec: ModelSpec,
    shares: Sequence[int],
    stages: int,
    scripts: Sequence[Sequence[int]] = (),
    max_rows: int = 64,
) -> Iterator[Generator]:
    source = random_source(spec, 9)
    with NativeNodes(
        spec, source, num_pages=NUM_PAGES, num_states=NUM_STATES, shares=shares, stages=stages
    ) as nodes:
        first = nodes.nodes[0]
        split = make_split(spec, tuple(map(Fraction, shares)), stages=stages)
        program = lower(build_graph(spec), split, 0)
        vectors = load_weights(program, source, "q4").vectors
        drafter = ScriptedDrafter(dict(enumerate(scripts)), vocab_size=spec.vocab_size)
        yield Generator(
            first, lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
            num_states=NUM_STATES if spec.has_state else 0, context=CONTEXT, max_rows=max_rows,
            vocab_size=spec.vocab_size, exp=lambda values: _native.exp(values).reshape(-1),
            speculation=Speculation(drafter, draft_tokens=4, adaptive=False),
            last_hidden=lambda: LastHidden(program, vectors, first, first.floats, "embeddings"),
            pipeline=first.pipeline(stages),
        )  # fmt: skip


def hearts(results: Sequence[Result]) -> list[object]:
    return [(one.tokens, one.digests, one.embedding, one.reason) for one in results]


@pytest.fixture(scope="module", params=SPECS)
def model(request: pytest.FixtureRequest) -> tuple[ModelSpec, list[Request], list[Result]]:
    """A model, requests, and their answers on one node, one after the other."""
    spec = SPECS[request.param]
    with generator(spec, (1,), 1) as alone:
        expected = [alone.run([one], digest=True, reuse=False)[0] for one in asks(spec)]
    return spec, asks(spec), expected


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize(("shares", "stages"), [((1, 1), 2), ((1, 1, 1, 1), 2), ((1, 2, 1), 3)])
def test_groups_give_the_answers_of_one_node(
    model: tuple[ModelSpec, list[Request], list[Result]],
    shares: tuple[int, ...],
    stages: int,
    drafts: bool,
) -> None:
    spec, requests, expected = model
    scripts = [one.tokens for one in expected] if drafts else []
    most = 0
    with generator(spec, shares, stages, scripts) as several:

        def look(_: object) -> None:
            nonlocal most
            most = max(most, several.state().in_flight)

        results = several.run(requests, on_tokens=look, digest=True, chunk=16)
    assert hearts(results) == hearts(expected)
    assert most == stages
    assert any(one.timing.accepted_tokens for one in results) == drafts


def test_what_is_cancelled_under_way_says_what_it_would_have_said(
    model: tuple[ModelSpec, list[Request], list[Result]],
) -> None:
    spec, requests, expected = model
    said: dict[int, int] = {}
    with generator(spec, (1, 1), 2) as several:
        results = several.run(
            requests,
            digest=True,
            on_tokens=lambda tokens: said.update((id, said.get(id, 0) + 1) for id, _ in tokens),
            cancelled=lambda: frozenset(id for id, count in said.items() if count > id),
        )
        again = several.run(requests, digest=True)
    for one, whole in zip(results, expected, strict=True):
        count = len(one.tokens)
        assert one.tokens == whole.tokens[:count] and one.digests == whole.digests[:count]
    assert [one.reason for one in results].count("cancelled") > 4
    assert hearts(again) == hearts(expected)


# --- the executor ---


@pytest.fixture
def book() -> Book:
    return Book(num_sequences=3, pages_each=2)


def pieces(book: Book) -> list[Step]:
    """Three sequences, a step each, and again."""
    first = [book.step([(one, [one + 2, 7, 9])]) for one in range(3)]
    return first + [book.step([(one, [4 + one] * 20)], all_logits=False) for one in range(3)]


@pytest.mark.parametrize("stages", [2, 3])
def test_logits_that_come_early_are_kept(stages: int, book: Book) -> None:
    """All steps are computed elsewhere before anybody asks for the first one's logits."""
    spec, steps = SPECS["dense"], pieces(book)
    source = random_source(spec, 2)
    with NativeNodes(spec, source, shares=(1,)) as alone:
        expected = [alone.run(step) for step in steps]
    with NativeNodes(spec, source, shares=(1,) * stages, stages=stages) as nodes:
        pipeline = nodes.nodes[0].pipeline(6)
        for number, step in enumerate(steps):
            pipeline.start(step, nodes.embeddings[step.tokens], best_only=number == 1)
            time.sleep(0.02)
        assert pipeline.under_way == 6
        found = [pipeline.finish() for _ in steps]
        assert pipeline.under_way == 0
        after = nodes.run(book.step([(0, [3])]))
    assert found.pop(1) == np.argmax(expected.pop(1), axis=1).tolist()
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, np.ndarray) and ours.tobytes() == theirs.tobytes()
    assert np.isfinite(after).all()


def test_steps_under_way_stand_alone(book: Book) -> None:
    spec, (step, other, *_) = SPECS["dense"], pieces(book)
    with NativeNodes(spec, random_source(spec, 2), shares=(1, 1), stages=2) as nodes:
        first, embeddings = nodes.nodes[0], nodes.embeddings
        native = first._executor
        with pytest.raises(ValueError, match="no step is under way"):
            native.finish()
        pipeline = first.pipeline(2)
        pipeline.start(step, embeddings[step.tokens], best_only=True)
        with pytest.raises(ValueError, match="steps are under way: finish them first"):
            first.run(other, embeddings[other.tokens])
        wrong = replace(other, positions=other.positions + 1000)
        with pytest.raises(ValueError, match="beyond its page table"):
            pipeline.start(wrong, embeddings[other.tokens], best_only=True)
        assert pipeline.under_way == 1
        assert len(pipeline.finish()) == 3
    with NativeNodes(spec, random_source(spec, 2), shares=(1, 1), stages=1) as nodes:
        assert nodes.nodes[0].pipeline(2).depth == 1
        with pytest.raises(ValueError, match="this node's own"):
            nodes.nodes[0]._executor.start(
                step.tokens, step.slots, step.positions, step.wants_logits.astype(np.int32),
                step.page_tables, nodes.embeddings[step.tokens], False, None, True,
            )  # fmt: skip


@pytest.mark.parametrize("layer", [0, 3])
def test_a_step_that_fails_ends_all_that_are_under_way(book: Book, layer: int) -> None:
    """In the first stage it fails where it starts, in the last one where it is waited for."""
    spec, (step, other, *_) = SPECS["dense"], pieces(book)
    tensors = random_tensors(spec, 2)
    tensors[f"layers.{layer}.down_proj"] *= np.float32(1e30)
    source = MemorySource(tensors=tensors)
    with NativeNodes(spec, source, weight_format="f32", shares=(1, 1), stages=2) as nodes:
        pipeline = nodes.nodes[0].pipeline(2)

        def both() -> None:
            for one in (step, other):
                pipeline.start(one, nodes.embeddings[one.tokens], best_only=True)
            pipeline.finish()

        with pytest.raises(StepError, match=f"layers.{layer}"):
            both()
        assert pipeline.under_way == 0


def test_the_bills_items_add_up(book: Book) -> None:
    spec, steps = SPECS["dense"], pieces(book)
    items = ("weights", "attention", "exchange_wait", "wire", "other")
    with NativeNodes(spec, random_source(spec, 2), shares=(1, 1), stages=2) as nodes:
        pipeline = nodes.nodes[0].pipeline(3)
        for step in steps[:3]:
            pipeline.start(step, nodes.embeddings[step.tokens], best_only=False)
        for _ in range(3):
            pipeline.finish()
    for node in nodes.nodes:
        bill = node.bill(decode=True)
        assert sum(bill[item] for item in items) == pytest.approx(bill["wall"], rel=0.02)
        assert bill["steps"] == 3 and bill["rows"] == 9
    assert nodes.nodes[1].bill(decode=True)["logit_bytes"] > 9 * 4 * spec.vocab_size


# --- the engine ---


@pytest.mark.parametrize(("shares", "stages"), [((1, 1), 2), ((1, 1, 1), 3)])
def test_an_engine_in_stages_keeps_them_all_at_work(shares: tuple[int, ...], stages: int) -> None:
    requests = [
        Request(tokens=(5, 6, 7 + i), params=replace(WARM if i % 2 else GREEDY, max_tokens=40))
        for i in range(8)
    ]
    run = RunOptions(context=256, streams=8)
    alone = EngineOptions(shares=(Fraction(1),), threads=1, run=run)
    options = replace(alone, shares=tuple(map(Fraction, shares)), stages=stages)
    with Folder.open(demo_folder()) as folder:
        with Engine.start(folder, alone, ThreadLauncher()) as engine:
            expected = [engine.generate([one], digest=True)[0] for one in requests]
            assert engine.state().in_flight == 0
        with Engine.start(folder, options, ThreadLauncher()) as engine:
            found = engine.generate(requests, digest=True)
            steps = engine.statistics()[-1].decode["steps"]
            assert engine.state().in_flight == 0
    assert hearts(found) == hearts(expected)
    assert steps >= stages * 39  # each has a part of the streams
