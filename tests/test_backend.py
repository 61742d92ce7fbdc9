"""Backends are interchangeable: the same packed weights, the same mesh, the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandweave import _native
from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.backend import BACKENDS, NATIVE, REFERENCE, Backend, NodeExecutor
from bandweave.executors.executor import ExecutorOptions, Step, StepError
from bandweave.executors.native_exchange import NativeStepExchange, exchanges_of
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from tests.helpers.followers import Followers
from tests.helpers.random_model import random_source, tiny_spec
from tests.helpers.reference_nodes import Book

SPEC = tiny_spec(family="qwen3", qk_norm="head", vocab_size=600)
SOURCE = random_source(SPEC, 3)
TABLE = widen(SOURCE.read("embed_tokens", Range(start=0, stop=SPEC.vocab_size)))
PAGES = 4


class MixedNodes:
    """A model on nodes of the backends named, one each, linked as native nodes are."""

    def __init__(
        self,
        *names: str,
        weight_format: str = "q4",
        stages: int = 1,
        spec: ModelSpec = SPEC,
        source: TensorSource = SOURCE,
        **more: object,
    ) -> None:
        self.backends: list[Backend] = [BACKENDS[name] for name in names]
        count = len(names)
        split = make_split(spec, (2,) + (1,) * (count - 1), stages=stages)
        graph = build_graph(spec, further=spec.further is not None)
        labels = [f"node {node}" for node in range(count)]
        self.exchanges = [_native.Exchange(node, labels, 1, 30.0, False) for node in range(count)]
        for high in range(count):
            for low in range(high):
                _native.join_locally(self.exchanges[low], self.exchanges[high])
        options = ExecutorOptions(num_pages=PAGES, max_pages=PAGES, spin=False, **more)  # type: ignore[arg-type]
        self.nodes: list[NodeExecutor] = []
        for node, backend in enumerate(self.backends):
            program = lower(graph, split, node)
            weights = load_weights(program, source, weight_format)
            exchange = self.exchanges[node] if count > 1 else None
            if exchange is not None and backend is REFERENCE:
                exchange = NativeStepExchange(program, exchange, options)
            self.nodes.append(backend.make_executor(program, weights, options, exchange))
        self.followers = Followers(
            [lambda node=node: node.follow() == "ran" for node in self.nodes[1:]]
        )

    def run(self, steps: list[Step]) -> np.ndarray:
        try:
            return np.concatenate([self.nodes[0].run(step, TABLE[step.tokens]) for step in steps])
        finally:
            self.exchanges[0].leave()
            self.followers.join()


def steps(rows: int = 20) -> list[Step]:
    tokens = np.random.default_rng(7).integers(0, SPEC.vocab_size, size=rows + 2).tolist()
    book = Book(num_sequences=2, pages_each=2)
    return [
        book.step([(0, tokens[: rows - 3]), (1, tokens[rows - 3 : rows])], all_logits=False),
        book.step([(1, tokens[rows : rows + 1]), (0, tokens[rows + 1 :])]),
    ]


@pytest.mark.parametrize("weight_format", ["f32", "bf16", "q8", "q4"])
def test_the_reference_runs_what_was_packed_for_the_kernels(weight_format: str) -> None:
    native = MixedNodes("native", weight_format=weight_format).run(steps())
    oracle = MixedNodes("reference", weight_format=weight_format).run(steps())
    assert oracle.tobytes() == native.tobytes()


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (("native", "reference"), {}),
        (("reference", "native"), {}),
        (("reference", "native", "reference"), {"hop_bytes": 1, "overlap_rows": 4}),
        (("native", "reference", "native"), {"wire": "q8"}),
        (("reference", "native"), {"wire": "bf16", "hop_bytes": 1}),
        (("native", "reference"), {"stages": 2}),
        (("reference", "native", "reference"), {"stages": 2, "wire": "bf16"}),
    ],
)
def test_backends_meet_in_one_mesh(names: tuple[str, ...], more: dict) -> None:
    """Sums of one hop and of two, in chunks, exact and rounded; rows between stages."""
    expected = MixedNodes(*("native",) * len(names), **more).run(steps())
    assert MixedNodes(*names, **more).run(steps()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("more", [{}, {"stages": 2}])
def test_backends_draft_together(more: dict) -> None:
    """Steps that name rows of the last one reach every node as such."""
    spec = replace(SPEC, further=SPEC.layers[-1])
    source = random_source(spec, 3, further=True)
    asked = [*steps(), steps()[0]]
    sources = np.arange(len(asked[0].tokens), dtype=np.int32)[::-1] // 2
    asked.insert(1, replace(asked[0], sources=np.ascontiguousarray(sources)))
    expected = MixedNodes("native", spec=spec, source=source).run(asked)
    for names in (("native", "reference"), ("reference", "native")):
        found = MixedNodes(*names, spec=spec, source=source, **more).run(asked)
        assert found.tobytes() == expected.tobytes()


def test_the_best_tokens_are_found_on_mixed_nodes() -> None:
    nodes = MixedNodes("native", "reference")
    first = steps()[0]
    try:
        found = nodes.nodes[0].best(first, TABLE[first.tokens])
    finally:
        nodes.exchanges[0].leave()
        nodes.followers.join()
    logits = MixedNodes("native").run([first])
    assert found == logits.argmax(axis=1).tolist()


def test_what_fails_on_one_kind_of_node_reaches_the_other() -> None:
    """A NaN in node 0's embeddings is found by whoever sums it up first; both hear why."""
    nodes = MixedNodes("native", "reference", weight_format="f32")
    first = steps()[0]
    rows = TABLE[first.tokens].copy()
    rows[0, 0] = np.nan
    with pytest.raises(StepError, match="not finite|too large"):
        nodes.nodes[0].run(first, rows)
    nodes.followers.join()
    assert len(nodes.followers.errors) == 1


def test_exchanges_alone_have_no_weights() -> None:
    program = lower(build_graph(SPEC), make_split(SPEC, (1, 1)), 0)
    alone = exchanges_of(program)
    assert {op.kind for op in alone.ops} == {"embed", "all_reduce_add", "gather_logits"}
    assert not (alone.weights or alone.vectors or alone.caches or alone.frequencies)


def test_operations_are_performed_only_inside_a_step() -> None:
    program = lower(build_graph(SPEC), make_split(SPEC, (1,)), 0)
    options = ExecutorOptions(num_pages=PAGES, max_pages=PAGES, spin=False)
    exchange = NativeStepExchange(program, None, options)  # type: ignore[arg-type]
    (embed,) = (op for op in program.ops if op.kind == "embed")
    with pytest.raises(ValueError, match="no step has been opened"):
        exchange.embed(embed, None)
    exchange.open(steps()[0])
    with pytest.raises(ValueError, match="gives the embedding rows"):
        exchange.embed(embed, None)
    with pytest.raises(ValueError, match="must be \\[rows, hidden_size\\]"):
        exchange.embed(embed, TABLE[:1])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_knows_the_sizes_of_a_program(name: str) -> None:
    backend = BACKENDS[name]
    program = lower(build_graph(SPEC), make_split(SPEC, (1,)), 0)
    options = ExecutorOptions(num_pages=PAGES, max_pages=PAGES, max_rows=20)
    weights = load_weights(program, SOURCE, "q8")
    assert backend.weight_bytes(program, "q8") > 0
    head_bytes = 2 * 64 * 2 * SPEC.head_dim
    assert backend.kv_page_bytes(program, "f16") == (
        SPEC.num_layers * SPEC.num_kv_heads * head_bytes
    )
    executor = backend.make_executor(program, weights, options)
    executor.run(steps()[0], TABLE[steps()[0].tokens])
    assert 0 < executor.work_bytes <= backend.work_bytes(program, options)
    assert executor.progress > 0


def test_all_backends_have_one_exponential() -> None:
    values = np.linspace(-30, 30, 500, dtype=np.float32)
    assert NATIVE.exp(values).tobytes() == REFERENCE.exp(values).tobytes()
