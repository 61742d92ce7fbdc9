"""Mixtures of experts and latent attention at their edges: how many experts there are and how rows
meet in them, numbers that are none, and memory that is promised before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from bandweave.executors.backend import NATIVE
from bandweave.executors.executor import ExecutorOptions, StepError
from bandweave.models.mlp_spec import (
    LARGEST,
    SIGMOID,
    SOFTMAX,
    SOFTMAX_OF_CHOSEN,
    TWO_LARGEST,
    MixtureSpec,
    RouterSpec,
)
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.weights.loading import load_weights
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import (
    ODD_SPECS,
    MemorySource,
    mixed,
    random_source,
    random_tensors,
    tiny_spec,
)
from tests.helpers.reference_nodes import Book, ReferenceNodes

Nodes = NativeNodes | ReferenceNodes
MIXED = ("grouped_experts", "biased_experts", "latent_queries", "latent_gated_expert")


def model(**mixture: object) -> ModelSpec:
    fields: dict[str, object] = {"num_experts": 6, "top_k": 2, "intermediate_size": 24}
    fields.update(mixture)
    spec = tiny_spec(hidden_size=40, num_layers=2, vocab_size=120, intermediate_size=30)
    return mixed(spec, dense=1, mlp=MixtureSpec(**fields))  # type: ignore[arg-type]


def steps(engine: Nodes, vocab: int) -> bytes:
    """Many rows of two sequences, then one row, then some of each."""
    tokens = np.random.default_rng(7).integers(0, vocab, size=60).tolist()
    book = Book(num_sequences=2, pages_each=1)
    made = [
        book.step([(0, tokens[:25]), (1, tokens[25:36])]),
        book.step([(1, tokens[36:37])]),
        book.step([(0, tokens[37:38]), (1, tokens[38:42])]),
    ]
    return np.concatenate([engine.run(step) for step in made]).tobytes()


def one_answer(spec: ModelSpec, source: MemorySource, weight_format: str, **native: object) -> None:
    with ReferenceNodes(spec, source, weight_format=weight_format, num_pages=2) as oracle:
        expected = steps(oracle, spec.vocab_size)
    ways: Sequence[dict[str, object]] = ({"threads": 3}, {"shares": (1, 2), "threads": 2})
    for way in ways:
        with NativeNodes(
            spec, source, weight_format=weight_format, num_pages=2, **way, **native,  # type: ignore[arg-type]
        ) as engine:  # fmt: skip
            assert steps(engine, spec.vocab_size) == expected, way


EDGES: dict[str, tuple[ModelSpec, str]] = {
    "one expert": (model(num_experts=1, top_k=1, router=RouterSpec(normalise=True)), "q4"),
    "all experts": (model(num_experts=5, top_k=5, router=RouterSpec(scoring=SIGMOID)), "q8"),
    "narrow experts": (model(intermediate_size=1, shared_size=1, bias=True), "f32"),
    "wide shared": (model(intermediate_size=3, shared_size=200), "mxfp4"),
    "groups of one": (
        model(router=RouterSpec(groups=6, top_groups=3, group_score=LARGEST, correction=True)),
        "nf4",
    ),
    "two largest of two": (
        model(
            top_k=4,
            router=RouterSpec(groups=3, top_groups=2, group_score=TWO_LARGEST, factor=16.0),
        ),
        "ulaw4",
    ),
    "many experts": (
        model(num_experts=70, top_k=9, router=RouterSpec(scoring=SOFTMAX_OF_CHOSEN)),
        "bf16",
    ),
}


@pytest.mark.parametrize("edge", EDGES)
def test_mixtures_of_odd_numbers_give_one_answer(edge: str) -> None:
    spec, weight_format = EDGES[edge]
    one_answer(spec, random_source(spec, 5), weight_format)


@pytest.mark.parametrize("scoring", [SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN])
def test_ties_go_to_the_lowest_experts(scoring: str) -> None:
    """All logits are equal, so every row goes to the first experts, and to no others."""
    spec = model(router=RouterSpec(scoring=scoring))
    tensors = random_tensors(spec, 5)
    tensors["layers.1.router"][:] = 0
    one_answer(spec, MemorySource(tensors=tensors), "q4")
    with ReferenceNodes(
        spec, MemorySource(tensors=tensors), weight_format="f32", num_pages=2
    ) as nodes:
        expected = steps(nodes, spec.vocab_size)
    changed = dict(tensors)
    for expert, same in ((2, True), (5, True), (1, False)):
        name = f"layers.1.experts.{expert}.down_proj"
        altered = MemorySource(tensors={**changed, name: tensors[name] * np.float32(2)})
        with NativeNodes(spec, altered, weight_format="f32", num_pages=2) as nodes:
            assert (steps(nodes, spec.vocab_size) == expected) == same, expert


def test_a_row_is_its_own_answer_in_any_company() -> None:
    """One row after the other, in chunks, at once: each row's logits are the same, however many
    rows its experts have."""
    for name in MIXED:
        spec = ODD_SPECS[name]
        tokens = np.random.default_rng(3).integers(0, spec.vocab_size, size=70).tolist()
        answers = set()
        for chunk in (1, 9, 70):
            book = Book(num_sequences=1, pages_each=2)
            with NativeNodes(
                spec, random_source(spec, 3), weight_format="q8", num_pages=2, threads=2,
                shares=(2, 1), max_rows=chunk,
            ) as engine:  # fmt: skip
                pieces = [tokens[at : at + chunk] for at in range(0, len(tokens), chunk)]
                rows = [engine.run(book.step([(0, piece)])) for piece in pieces]
            answers.add(np.concatenate(rows).tobytes())
        assert len(answers) == 1, name


@pytest.mark.parametrize("wire", ["bf16", "q8"])
@pytest.mark.parametrize("name", ["grouped_experts", "latent_gated_expert"])
def test_rounded_sums_of_experts_are_the_reference_ones(name: str, wire: str) -> None:
    spec, source = ODD_SPECS[name], random_source(ODD_SPECS[name], 3)
    split = {"shares": (3, 1, 1, 1), "stages": 2, "wire": wire}
    with ReferenceNodes(spec, source, weight_format="q4", num_pages=2, **split) as oracle:
        expected = steps(oracle, spec.vocab_size)
    with NativeNodes(spec, source, weight_format="q4", num_pages=2, **split) as engine:  # type: ignore[arg-type]
        assert steps(engine, spec.vocab_size) == expected


def scaled(spec: ModelSpec, tensor: str, factor: float) -> MemorySource:
    """A model with one tensor so large that numbers leave their range."""
    tensors = random_tensors(spec, 7)
    tensors[tensor] = tensors[tensor] * np.float32(factor)
    return MemorySource(tensors=tensors)


FAILURES: dict[str, tuple[str, str, float, str]] = {
    "router": ("grouped_experts", "layers.1.router", 3e38, "layers.1.router.route"),
    "down": ("biased_experts", "layers.2.experts.0.down_proj", 1e10, "layers.2.experts.down"),
    "bias": ("biased_experts", "layers.1.experts.1.down_proj.bias", 1e10, "layers.1.experts.down"),
    "key": ("latent_queries", "layers.2.kv_a_norm", 1e6, "layers.2.attention.kv"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_numbers_out_of_range_fail_the_step_in_the_layer(failure: str) -> None:
    """On every node; and a node that is alone takes the next step."""
    name, tensor, factor, where = FAILURES[failure]
    spec, source = ODD_SPECS[name], scaled(ODD_SPECS[name], tensor, factor)
    step = Book(num_sequences=1, pages_each=1).step([(0, list(range(1, 30)))])
    makers: Sequence[Callable[..., Nodes]] = (ReferenceNodes, NativeNodes)
    for make in makers:
        for shares in ((1,), (2, 1)):
            with make(spec, source, weight_format="f32", num_pages=1, shares=shares) as engine:
                for _ in range(2 if shares == (1,) else 1):
                    with pytest.raises(StepError, match=f"^{where}"):
                        engine.run(step)
            assert [str(error).split(":")[0] for error in engine.errors] == [where] * (
                len(shares) - 1
            )


@cache
def numbers(name: str) -> MemorySource:
    return random_source(ODD_SPECS[name], 3)


@pytest.mark.parametrize("weight_format", ["f32", "q8", "q4"])
@pytest.mark.parametrize("name", MIXED)
def test_no_more_memory_is_taken_than_was_promised(name: str, weight_format: str) -> None:
    spec = ODD_SPECS[name]
    for shares in ((1,), (2, 1)):
        program = lower(build_graph(spec), make_split(spec, shares), 0)
        weights = load_weights(program, numbers(name), weight_format)
        assert NATIVE.weight_bytes(program, weight_format) >= sum(
            matrix.panels.nbytes for matrix in weights.matrices.values()
        )
        if len(shares) > 1:
            continue
        for rows in (1, 64):
            options = ExecutorOptions(num_pages=1, max_pages=1, max_rows=rows)
            executor = NATIVE.make_executor(program, weights, options)
            assert executor.work_bytes <= NATIVE.work_bytes(program, options)
