"""Encoded programs: what the core reads is what was lowered, damaged bytes are refused, and layers
may differ in what belongs to their operations."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from bandweave import _native
from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.native import NativeExecutor
from bandweave.models.cut import columns, heads, kv_heads
from bandweave.models.graph import Graph
from bandweave.models.mlp_spec import GateSpec
from bandweave.models.registry import build_graph
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import ModelSpec
from bandweave.programs.encoding import encode
from bandweave.programs.lowering import lower
from bandweave.programs.operations import BY_KIND, OPERATIONS, OPERATIONS_DIGEST
from bandweave.programs.program import Op, Program
from bandweave.programs.split import make_split
from bandweave.programs.work import Attention, Step, step_work
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import random_source, tiny_spec
from tests.helpers.reference_nodes import Book, ReferenceNodes

SPEC = tiny_spec(num_layers=4, vocab_size=50)
SOURCE = random_source(SPEC, 3)


def whole() -> tuple[Program, Weights]:
    program = lower(build_graph(SPEC), make_split(SPEC, (1,)), 0)
    return program, load_weights(program, SOURCE, "f32")


def refusal(encoded: bytes, weights: Weights) -> str:
    matrices, vectors = list(weights.matrices.values()), list(weights.vectors.values())
    with pytest.raises(ValueError) as caught:
        _native.Program(encoded, matrices, vectors)
    return str(caught.value)


# --- damaged bytes ---


def test_bytes_that_end_too_early_or_go_on_are_refused() -> None:
    program, weights = whole()
    encoded = encode(program)
    for size in {0, 3, 4, 19, *random.Random(1).sample(range(len(encoded)), 300)}:
        assert "end" in refusal(encoded[:size], weights), size
    assert "goes on after its end" in refusal(encoded + b"\0", weights)


def test_a_program_that_ends_in_an_operation_names_it() -> None:
    program, weights = whole()
    start = encode(program).rindex(b"layers.1.attention")
    sentence = refusal(encode(program)[: start + 40], weights)
    assert "the program ends in the midst of operation layers.1.attention" in sentence
    assert sentence.endswith(", of kind attention")


def test_a_program_of_another_table_is_refused() -> None:
    program, weights = whole()
    encoded = bytearray(encode(program))
    encoded[0] ^= 1
    assert "another table of operations" in refusal(bytes(encoded), weights)
    assert int.from_bytes(encode(program)[:4], "little") == OPERATIONS_DIGEST


def test_counts_take_no_more_memory_than_their_bytes() -> None:
    """A count of things that cannot be there is refused before anything is made room for."""
    program, weights = whole()
    encoded = encode(program)
    for at in range(4, len(encoded) - 4, 4):
        forged = encoded[:at] + b"\xff\xff\xff\x7f" + encoded[at + 4 :]
        matrices, vectors = list(weights.matrices.values()), list(weights.vectors.values())
        try:  # a tag, a name's letter or a frequency may be anything
            _native.Program(forged, matrices, vectors)
        except ValueError:
            continue


def test_weights_must_be_those_of_the_program() -> None:
    program, weights = whole()
    matrices, vectors = list(weights.matrices.values()), list(weights.vectors.values())
    encoded = encode(program)
    with pytest.raises(ValueError, match="all of its weights"):
        _native.Program(encoded, matrices[1:], vectors)
    with pytest.raises(ValueError, match="packed matrix has another shape"):
        _native.Program(encoded, matrices[::-1], vectors)
    with pytest.raises(ValueError, match="vector has another size"):
        _native.Program(encoded, matrices, [vectors[0][1:], *vectors[1:]])


# --- what the table does not have ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "softmax"}, "is a softmax, which no table has"),
        ({"attributes": {}}, "lacks 'groups'"),
        ({"attributes": {"groups": 1, "dim": 64, "eps": 1e-5, "bias": 1}}, "has no bias"),
        ({"attributes": {"groups": 1 << 40, "dim": 64, "eps": 1e-5}}, "cannot be written"),
        ({"attributes": {"groups": 1, "dim": 64, "eps": 1e300}}, "cannot be written"),
        ({"vector": "another"}, "lacks 'another'"),
    ],
)
def test_an_operation_that_no_table_has_is_refused(changes: dict, words: str) -> None:
    program, _ = whole()
    index = next(i for i, op in enumerate(program.ops) if op.kind == "rms_norm")
    op = replace(program.ops[index], **changes)
    changed = replace(program, ops=(*program.ops[:index], op, *program.ops[index + 1 :]))
    with pytest.raises(ValueError, match=f"operation {op.name}.*{words}"):
        encode(changed)


def test_lowered_operations_are_as_the_table_says() -> None:
    spec = tiny_spec(family="qwen3", qk_norm="head", vocab_size=700)
    for shares, stages in (((1,), 1), ((2, 1), 1), ((1, 1), 2)):
        split = make_split(spec, shares, stages=stages)
        for node in range(len(shares)):
            for op in lower(build_graph(spec), split, node).ops:
                table = BY_KIND[op.kind]
                assert set(op.attributes) == {one.name for one in table.attributes}
                required = [one for one in table.inputs if not one.optional]
                assert len(required) <= len(op.inputs) <= len(table.inputs)
                assert (op.weight is not None) == table.weight


def test_the_table_has_every_kind_once() -> None:
    assert len(BY_KIND) == len(OPERATIONS)
    for one in OPERATIONS:
        names = [view.name for view in (*one.inputs, *one.outputs)]
        assert len(set(names) | {a.name for a in one.attributes}) == len(names) + len(
            one.attributes
        )


# --- layers that differ ---


def alternating(spec: ModelSpec) -> Graph:
    """Every other layer with a window, a rope and a scale of its own."""
    g = Graph(spec)
    x = g.embed()
    queries = heads(spec.num_heads, spec.head_dim)
    keys = kv_heads(spec.num_kv_heads, spec.head_dim, spec.heads_per_kv_head)
    local = RopeSpec(theta=100.0, rotary_dim=spec.head_dim // 2)
    for layer in range(spec.num_layers):
        odd = layer % 2 == 1
        with g.layer(layer):
            y = g.norm(x, "input_norm")
            q, k, v = g.linear(
                y,
                (
                    ("q_proj", queries),
                    ("k_proj", keys),
                    ("v_proj", keys),
                ),
            )
            rope = local if odd else spec.heads.rope
            assert rope is not None
            q, k = g.rope(q, rope), g.rope(k, rope)
            attended = g.attention(
                q, k, v, head_dim=spec.head_dim, window=9 if odd else None,
                scale=0.5 if odd else None,
            )  # fmt: skip
            x = g.linear_add(x, attended, "o_proj")
            y = g.norm(x, "post_norm")
            inner = columns(spec.intermediate_size)
            gate, up = g.linear(y, (("gate_proj", inner), ("up_proj", inner)))
            x = g.linear_add(x, g.gated_mul(gate, up, GateSpec()), "down_proj")
    g.logits(g.norm(x, "norm"))
    return g


def logits(nodes: NativeNodes | ReferenceNodes) -> np.ndarray:
    book = Book(num_sequences=1, pages_each=2)
    tokens = np.random.default_rng(7).integers(0, SPEC.vocab_size, size=30).tolist()
    steps = [book.step([(0, tokens[:25])]), book.step([(0, tokens[25:26])])]
    with nodes as engine:
        return np.concatenate([engine.run(step) for step in steps])


def test_layers_may_have_other_windows_ropes_and_scales() -> None:
    graph = alternating(SPEC)
    expected = logits(ReferenceNodes(SPEC, SOURCE, graph=graph))
    assert logits(NativeNodes(SPEC, SOURCE, graph=graph)).tobytes() == expected.tobytes()
    split = NativeNodes(SPEC, SOURCE, graph=graph, shares=(2, 1), threads=2)
    assert logits(split).tobytes() == expected.tobytes()
    alike = logits(ReferenceNodes(SPEC, SOURCE))
    assert alike.tobytes() != expected.tobytes()


def test_each_rope_has_its_table_and_each_layer_its_cache() -> None:
    program = lower(alternating(SPEC), make_split(SPEC, (1,)), 0)
    assert [len(table) for table in program.frequencies] == [
        SPEC.head_dim // 2, SPEC.head_dim // 4
    ]  # fmt: skip
    attentions = [op for op in program.ops if op.kind == "attention"]
    assert [op.number("cache") for op in attentions] == [0, 1, 2, 3]
    assert [op.number("window") for op in attentions] == [0, 9, 0, 9]
    assert [op.real("scale") for op in attentions][1::2] == [0.5, 0.5]
    ropes: list[Op] = [op for op in program.ops if op.kind == "rope"]
    assert [op.number("table") for op in ropes] == [0, 0, 1, 1] * 2


def test_work_is_each_layers_own() -> None:
    """A row sees no more keys than its layer's window; layers that are alike are lowered once."""
    graph = alternating(SPEC)
    assert graph.alike() == (0, 1, 0, 1)
    assert build_graph(SPEC).alike() == (0, 0, 0, 0)
    step = Step(rows=2, keys=100.0, logit_rows=2)
    work = list(step_work(graph, make_split(SPEC, (1, 1)), step, format="q4"))
    for node in (0, 1):
        keys = [
            one.keys
            for segment, times in work
            for one in segment.local.get(node, ()) * times
            if isinstance(one, Attention)
        ]
        assert keys == [100.0, 9.0, 100.0, 9.0]
    assert {times for _, times in work} == {1}
    alike = list(step_work(build_graph(SPEC), make_split(SPEC, (1,)), step, format="q4"))
    assert [times for _, times in alike] == [1, 4, 4, 1]


def test_an_executor_says_which_operation_it_cannot_run() -> None:
    program, weights = whole()
    caches = tuple(replace(cache, v_dim=cache.v_dim * 2) for cache in program.caches)
    options = ExecutorOptions(num_pages=1, max_pages=1, spin=False)
    with pytest.raises(ValueError, match="keys and values have other widths"):
        NativeExecutor(replace(program, caches=caches), weights, options)
