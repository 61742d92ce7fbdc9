"""The layer that predicts further tokens: what it says on any split, and that it never shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest

from bandweave import _native
from bandweave.checkpoints.source import TensorSource
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions, Step
from bandweave.executors.native import NativeExecutor
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.drafter import Feedback
from bandweave.generation.speculation.layer_drafter import LayerDrafter
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.weights.loading import load_weights
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32, ODD_SPECS, random_source, tiny_spec
from tests.helpers.reference_nodes import Book, ReferenceNodes
from tests.transformers_reference import cases
from tests.transformers_reference.cases import FURTHER, PROMPT_LENGTHS, Case

TOLERANCE = 1e-4  # of the largest logit


def with_further(spec: ModelSpec) -> ModelSpec:
    return replace(spec, further=spec.layers[-1])


SPECS = {
    "latents": with_further(replace(ODD_SPECS["latent_queries"], family="deepseek")),
    "states": replace(ODD_SPECS["states"], further=ODD_SPECS["states"].layers[1]),
    "heads": with_further(
        tiny_spec(
            family="qwen3", hidden_size=72, num_layers=3, num_heads=6, num_kv_heads=3, head_dim=12
        )
    ),
}


class Engine(Protocol):
    def run(self, step: Step) -> F32: ...


Make = Callable[..., AbstractContextManager[Engine]]


def reference(spec: ModelSpec, source: TensorSource, pages: int, **split: object) -> ReferenceNodes:
    graph = build_graph(spec, further=True)
    formats = {"weight_format": "f32", "kv_dtype": "f32"}
    return ReferenceNodes(spec, source, num_pages=pages, graph=graph, **formats, **split)  # type: ignore[arg-type]


def native(spec: ModelSpec, source: TensorSource, pages: int, **split: object) -> NativeNodes:
    graph = build_graph(spec, further=True)
    formats = {"weight_format": "f32", "kv_format": "f32"}
    return NativeNodes(spec, source, num_pages=pages, graph=graph, **formats, **split)  # type: ignore[arg-type]


def what_it_says(engine: Engine, book: Book, tokens: Sequence[Sequence[int]]) -> list[F32]:
    """Logits of the layer: of all prompts' positions but the last, read in one step, and of each
    prompt's last position, from the layer's own state before it."""
    lengths = [len(one) - 1 for one in tokens]
    engine.run(book.step([(i, one[:-1]) for i, one in enumerate(tokens)]))
    starts = np.cumsum([0, *lengths])
    book.lengths = [0] * len(tokens)
    step = book.step([(i, one[1:-1]) for i, one in enumerate(tokens)])
    rows = [np.arange(n - 1) + start for n, start in zip(lengths, starts, strict=False)]
    first = engine.run(replace(step, sources=np.concatenate(rows).astype(np.int32)))
    step = book.step([(i, one[-1:]) for i, one in enumerate(tokens)])
    lasts = np.cumsum([n - 1 for n in lengths]) - 1
    second = engine.run(replace(step, sources=lasts.astype(np.int32)))
    parts = np.split(first, np.cumsum([n - 1 for n in lengths])[:-1])
    return [np.concatenate([part, second[i : i + 1]]) for i, part in enumerate(parts)]


@pytest.mark.parametrize("make", [reference, native])
@pytest.mark.parametrize("case", FURTHER, ids=lambda case: case.name)
def test_it_agrees_with_transformers(case: Case, make: Make) -> None:
    spec = spec_from_config({**case.config(), **cases.FURTHER_FIELDS})
    tokens = [
        sequence[: length + 1]
        for sequence, length in zip(
            cases.sequences(case, spec.vocab_size), PROMPT_LENGTHS, strict=True
        )
    ]
    book = Book(num_sequences=len(tokens), pages_each=3)
    with make(spec, random_source(spec, case.seed, further=True), book.num_pages) as engine:
        found = what_it_says(engine, book, tokens)
    logits = np.stack([found[sequence][position] for sequence, position in cases.further_rows()])
    with np.load(cases.FURTHER_PATH) as stored:
        expected = stored[case.name]
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", SPECS)
def test_it_says_the_same_on_any_split(name: str) -> None:
    spec = SPECS[name]
    source = random_source(spec, 3, further=True)
    tokens = [[(7 * i * i + n) % spec.vocab_size for i in range(n)] for n in (9, 70)]

    def said(make: Make, **split: object) -> list[F32]:
        book = Book(num_sequences=2, pages_each=2)
        with make(spec, source, book.num_pages, **split) as engine:
            return what_it_says(engine, book, tokens)

    alone = said(reference)
    for make, split in (
        (native, {}),
        (native, {"shares": (2, 1), "threads": 2}),
        (native, {"shares": (1, 3, 1)}),
        (native, {"shares": (1, 1, 1), "stages": 2}),
        (reference, {"shares": (1, 2)}),
        (reference, {"shares": (1, 1), "stages": 2}),
    ):
        for expected, found in zip(alone, said(make, **split), strict=True):
            assert found.tobytes() == expected.tobytes(), (make, split)


def test_a_model_computes_the_same_beside_it() -> None:
    """The last norm is of all rows then, and the program has a cache more."""
    spec = SPECS["latents"]
    source = random_source(spec, 3, further=True)
    found = []
    for graph in (build_graph(spec), build_graph(spec, further=True)):
        book = Book(num_sequences=1, pages_each=1)
        with NativeNodes(spec, source, shares=(1, 1), graph=graph) as nodes:
            found.append(nodes.run(book.step([(0, range(40))], all_logits=False)).tobytes())
    assert found[0] == found[1]


def test_it_adds_nothing_but_its_own_weights() -> None:
    spec = SPECS["latents"]
    for shares in ((1,), (1, 2)):
        split = make_split(spec, shares)
        for node in range(len(shares)):
            plain, drafting = (
                lower(build_graph(spec, further=further), split, node) for further in (False, True)
            )
            more = drafting.weights.keys() - plain.weights.keys()
            assert more and all(name.startswith(f"layers.{spec.num_layers}.") for name in more)
            assert {name: drafting.weights[name] for name in plain.weights} == plain.weights
            assert drafting.caches[:-1] == plain.caches
            assert plain.draft_ops == () and plain.main_ops == plain.ops
            kinds = [op.kind for op in drafting.main_ops]
            assert "pick_rows" not in kinds and len(kinds) == len(plain.ops)


def test_a_program_without_one_does_not_draft() -> None:
    spec = ODD_SPECS["latent_queries"]
    program = lower(build_graph(spec), make_split(spec, (1,)), 0)
    weights = load_weights(program, random_source(spec, 3), "q4")
    executor = NativeExecutor(program, weights, ExecutorOptions(num_pages=1, max_pages=1))
    step = replace(
        Book(num_sequences=1, pages_each=1).step([(0, [1, 2])]), sources=np.zeros(2, np.int32)
    )
    with pytest.raises(ValueError, match="which this program does not"):
        executor.run(step, np.zeros((2, spec.hidden_size), np.float32))


@pytest.mark.parametrize("source", [-1, 256])
def test_rows_that_no_step_has_are_refused(source: int) -> None:
    spec = SPECS["heads"]
    with native(spec, random_source(spec, 3, further=True), 1) as nodes:
        step = Book(num_sequences=1, pages_each=1).step([(0, [1])])
        nodes.run(step)
        with pytest.raises(ValueError, match="a row names a row that no step has"):
            nodes.run(replace(step, sources=np.array([source], np.int32)))


# --- answers ---

SPEC = SPECS["latents"]
NUM_PAGES, CONTEXT = 12, 192
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
WARM = SamplingParams(temperature=0.7, top_p=0.9, repetition_penalty=1.2, seed=5, max_tokens=12)


def asked(number: int, length: int, params: SamplingParams = GREEDY) -> Request:
    tokens = tuple((37 * i * i + 11 * number + 5) % SPEC.vocab_size for i in range(length))
    return Request(tokens=tokens, params=params)


# One passes a page's end while it decodes.
REQUESTS = [asked(0, 60), asked(1, 5, WARM), asked(2, 1), asked(3, 70, WARM)]


class Kept(LayerDrafter):
    """Keeps what it drafted, by the request and how much had been said."""

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        drafts = super().draft(wanted)
        for (one, _), tokens in zip(wanted, drafts, strict=True):
            self.given[one.request.tokens, len(one.answer)] = tokens
        return drafts

    given: dict[tuple[tuple[int, ...], int], list[int]]


def test_a_hybrid_s_answers_do_not_show_it() -> None:
    """States go back to where a draft was wrong; the layer's own cache has no state."""
    spec, pages = SPECS["states"], {"num_pages": NUM_PAGES, "num_states": 6}
    source, found, drafted = random_source(spec, 4, further=True), [], 0
    requests = [
        Request(tokens=tuple(one % spec.vocab_size for one in asked.tokens), params=asked.params)
        for asked in REQUESTS
    ]
    for most, split in (
        (0, {}),
        (3, {}),
        (2, {"shares": (2, 1)}),
        (3, {"stages": 2, "shares": (1, 1, 1)}),
    ):
        graph = build_graph(spec, further=most > 0)
        with NativeNodes(spec, source, graph=graph, **pages, **split) as nodes:  # type: ignore[arg-type]
            made, _ = generator(nodes, most, num_states=6)
            results = made.run(requests, digest=True)
            found.append(hearts(results))
            drafted += sum(one.timing.drafted_tokens for one in results)
    assert found[1:] == found[:1] * 3 and drafted > 20


def generator(nodes: NativeNodes, most: int, **options: int) -> tuple[Generator, Kept]:
    drafter = Kept(
        nodes.nodes[0],
        lambda tokens: nodes.embeddings[tokens],
        exp=lambda values: _native.exp(values).reshape(-1),
    )
    drafter.given = {}
    speculation = Speculation(drafter, draft_tokens=most, adaptive=False) if most else None
    sizes: dict[str, Any] = {"num_pages": NUM_PAGES, "context": CONTEXT, "max_rows": 256}
    sizes |= options
    made = Generator(
        nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], vocab_size=len(nodes.embeddings),
        exp=lambda values: _native.exp(values).reshape(-1), speculation=speculation, **sizes,
    )  # fmt: skip
    return made, drafter


def hearts(results: Sequence[Result]) -> list[tuple[object, ...]]:
    return [(one.tokens, one.reason, one.logits_digest, one.digests) for one in results]


@pytest.fixture(scope="module")
def plain() -> list[tuple[object, ...]]:
    with NativeNodes(SPEC, random_source(SPEC, 4, further=True), num_pages=NUM_PAGES) as nodes:
        return hearts(generator(nodes, 0)[0].run(REQUESTS, digest=True))


@pytest.mark.parametrize("split", [{}, {"shares": (2, 1)}, {"shares": (1, 1, 1), "stages": 2}])
def test_answers_do_not_show_it(plain: list[tuple[object, ...]], split: dict[str, object]) -> None:
    graph, source = build_graph(SPEC, further=True), random_source(SPEC, 4, further=True)
    drafted: list[dict[tuple[tuple[int, ...], int], list[int]]] = []
    with NativeNodes(SPEC, source, num_pages=NUM_PAGES, graph=graph, **split) as nodes:  # type: ignore[arg-type]
        for most, chunk, options in (
            (1, None, {}), (3, None, {}), (3, 16, {}), (3, None, {"max_rows": 7}),
            (3, None, {"num_pages": 5}), (0, None, {}),
        ):  # fmt: skip
            made, drafter = generator(nodes, most, **options)
            results = made.run(REQUESTS, digest=True, chunk=chunk, reuse=False)
            assert hearts(results) == plain, (most, chunk, options)
            assert (sum(one.timing.drafted_tokens for one in results) > 0) == (most > 0)
            if most == 3 and not options:
                drafted.append(dict(drafter.given))
    # Nor does it show in the guesses how a prompt was read. While one is, nothing is drafted.
    whole, in_chunks = drafted
    both = whole.keys() & in_chunks.keys()
    assert len(both) > 20 and [whole[key] for key in both] == [in_chunks[key] for key in both]


def test_a_follow_up_is_guessed_as_if_all_were_read_anew() -> None:
    graph = build_graph(SPEC, further=True)
    first, given = asked(0, 30), []
    with NativeNodes(
        SPEC, random_source(SPEC, 4, further=True), num_pages=NUM_PAGES, graph=graph
    ) as nodes:
        for reuse in (True, False):
            made, drafter = generator(nodes, 2)
            said = made.run([first])[0].tokens
            follow_up = Request(tokens=(*first.tokens, *said, 3, 1, 4), params=GREEDY)
            drafter.given.clear()
            result = made.run([follow_up], reuse=reuse)[0]
            assert (result.timing.reused_tokens > 0) == reuse
            given.append(dict(drafter.given))
    assert given[0] == given[1] != {}


def test_guesses_take_no_pages() -> None:
    """The last position of a page is decoded with what fits."""
    graph = build_graph(SPEC, further=True)
    request = replace(asked(0, PAGE_SIZE - 3), params=replace(GREEDY, max_tokens=8))
    with NativeNodes(SPEC, random_source(SPEC, 4, further=True), num_pages=2, graph=graph) as nodes:
        results = []
        for most in (0, 5):
            made, drafter = generator(nodes, most, num_pages=2, context=2 * PAGE_SIZE)
            results.append(hearts(made.run([request], digest=True)))
    assert results[0] == results[1]
    lengths = {said: len(tokens) for (_, said), tokens in drafter.given.items()}
    assert max(lengths.values()) > 1


class NoGuesses:
    """The executor, as if the layer's logits were never finite."""

    def __init__(self, executor: NativeExecutor) -> None:
        self._executor = executor

    def best(self, step: Step, embeddings: F32) -> list[int]:
        return [-1] * len(self._executor.best(step, embeddings))

    def run(self, step: Step, embeddings: F32) -> F32:
        return np.full_like(self._executor.run(step, embeddings), np.nan)


def test_where_its_logits_are_not_finite_nothing_is_drafted(
    plain: list[tuple[object, ...]],
) -> None:
    graph, source = build_graph(SPEC, further=True), random_source(SPEC, 4, further=True)
    with NativeNodes(SPEC, source, num_pages=NUM_PAGES, graph=graph) as nodes:
        made, drafter = generator(nodes, 3)
        drafter._executor = NoGuesses(nodes.nodes[0])
        assert hearts(made.run(REQUESTS, digest=True)) == plain
    assert set(map(tuple, drafter.given.values())) == {()}


def test_specs_count_it_only_where_it_is() -> None:
    for case in FURTHER:
        config = {**case.config(), **cases.FURTHER_FIELDS}
        spec = spec_from_config(config)
        assert spec.further == spec.layers[-1]
        without = spec_from_config({**config, **dict.fromkeys(cases.FURTHER_FIELDS, 0)})
        assert without == replace(spec, further=None)
    with pytest.raises(ValueError, match="--speculate ngram"):
        build_graph(ODD_SPECS["latent_queries"], further=True)
