"""Programs are checked before an executor runs them: what would reach beyond its memory is refused,
and norms may be wider than the model."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bandweave import _native
from bandweave.executors.executor import ExecutorOptions, Step
from bandweave.executors.native import NativeExecutor
from bandweave.executors.reference.executor import ReferenceExecutor
from bandweave.executors.reference.weights import load_reference
from bandweave.models.graph_op import SplitUnit
from bandweave.models.registry import build_graph
from bandweave.models.rope import RopeTable
from bandweave.probing.programs import matrix, products
from bandweave.programs.lowering import lower
from bandweave.programs.program import Buffer, Op, Part, Program, Vector, View, Weight
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from tests.helpers.linked_nodes import pair_link
from tests.helpers.random_model import MemorySource, bell, random_source, tiny_spec
from tests.helpers.reference_nodes import Book

SPEC = tiny_spec(family="qwen3", qk_norm="head", vocab_size=50)
SOURCE = random_source(SPEC, 3)
OPTIONS = ExecutorOptions(num_pages=4, max_pages=4, max_rows=16, spin=False)


def program_of(node: int = 0, shares: tuple[int, ...] = (1,), stages: int = 1) -> Program:
    return lower(build_graph(SPEC), make_split(SPEC, shares, stages=stages), node)


def weights_of(program: Program) -> Weights:
    return load_weights(program, SOURCE, "f32")


def exchange(node: int, count: int) -> _native.Exchange:
    """A node's links to all others; the others' ends stay open as long as it lives."""
    names = [f"node {n}" for n in range(count)]
    ends = [_native.Exchange(n, names, 1, 5.0, False) for n in range(count)]
    for high in range(count):
        for low in range(high):
            pair_link(ends[low], ends[high], low, high)
    _OPEN.append(ends)
    return ends[node]


_OPEN: list[list[_native.Exchange]] = []


def refusal(
    program: Program,
    exchange: _native.Exchange | None = None,
    options: ExecutorOptions = OPTIONS,
) -> str:
    weights = weights_of(program_of(program.node, (1,) * program.num_nodes))
    with pytest.raises(ValueError) as caught:
        NativeExecutor(program, weights, options, exchange)
    return str(caught.value)


def changed(program: Program, kind: str, **changes: Any) -> Program:
    """The program with the first operation of a kind changed; attributes by name, ``a``, ``b`` and
    ``out`` as changes of its views, anything else as the operation's own."""
    index = next(i for i, op in enumerate(program.ops) if op.kind == kind)
    op = program.ops[index]
    inputs, outputs = list(op.inputs), list(op.outputs)
    attributes, own = dict(op.attributes), {}
    for name, value in changes.items():
        if name in ("a", "b"):
            place = "ab".index(name)
            inputs[place] = replace(inputs[place], **value)
        elif name == "out":
            outputs[0] = replace(outputs[0], **value)
        elif name in {field.name for field in dataclasses.fields(Op)}:
            own[name] = value
        else:
            attributes[name] = value
    op = replace(
        op, inputs=tuple(inputs), outputs=tuple(outputs), attributes=attributes, **own
    )  # fmt: skip
    return replace(program, ops=(*program.ops[:index], op, *program.ops[index + 1 :]))


def table(*frequencies: float) -> RopeTable:
    return RopeTable(frequencies=frequencies)


HUGE = (1 << 31) - 1
# What an operation may not be told: its kind, what is changed, and words of the sentence.
WRONG_OPS: list[tuple[str, Mapping[str, Any], str]] = [
    ("embed", {"out": {"width": 1}}, "not of the model's width"),
    ("embed", {"out": {"offset": 1}}, "a view leaves its buffer"),
    ("embed", {"out": {"offset": -1}}, "a number is out of range"),
    ("embed", {"group": (0, 0)}, "too many nodes"),
    ("embed", {"group": (1,)}, "not there"),
    ("embed", {"group": ()}, "not in its group"),
    ("rms_norm", {"dim": 1}, "do not make its width"),
    ("rms_norm", {"groups": 0}, "do not make its width"),
    ("rms_norm", {"groups": 1 << 16, "dim": 1 << 16}, "do not make its width"),
    ("rms_norm", {"out": {"width": 1 << 20}}, "a view leaves its buffer"),
    ("rms_norm", {"vector": None}, "a vector does not exist"),
    ("linear", {"weight": None}, "a matrix does not exist"),
    ("linear", {"weight": "layers.0.o_proj"}, "its matrix has another shape"),
    ("linear", {"a": {"width": 16}}, "its matrix has another shape"),
    ("linear", {"out": {"offset": 8}}, "a view leaves its buffer"),
    ("linear_grid", {"out": {"buffer": "x"}}, "another kind of number"),
    ("linear_grid", {"out": {"width": 1 << 28}}, "a view leaves its buffer"),
    ("rope", {"dim": 2}, "do not make its width"),
    ("rope", {"heads": -1}, "a number is out of range"),
    ("rope", {"rotary": 6}, "two elements for each of its frequencies"),
    ("rope", {"table": 1}, "its table of frequencies does not exist"),
    ("rope", {"to_offset": 1}, "writes more than a head"),
    ("rope", {"offset": 1}, "rotates more than a head"),
    ("rope", {"interleaved": 2}, "neither pairs halves nor neighbours"),
    ("kv_append", {"cache": 99}, "its KV cache does not exist"),
    ("kv_append", {"cache": -1}, "a number is out of range"),
    ("kv_append", {"kv_heads": 4, "k_dim": 8, "v_dim": 8}, "it leaves the KV cache"),
    ("attention", {"kv_map": (0, 0, 0, 99)}, "it leaves the KV cache"),
    ("attention", {"kv_map": (0, 0, 0, -1)}, "a number is out of range"),
    ("attention", {"kv_map": (0,)}, "not every head has its KV head"),
    ("attention", {"cache": 99}, "its KV cache does not exist"),
    ("attention", {"scale": float("nan")}, "a number is not finite"),
    ("attention", {"v_dim": 8}, "do not make its width"),
    ("attention", {"window": -1}, "a number is out of range"),
    ("attention", {"window": HUGE}, "a number is out of range"),
    ("gated_mul", {"b": {"width": 8}}, "its views have other widths"),
    ("all_reduce_add", {"group": ()}, "not in its group"),
    ("all_reduce_add", {"contributors": (0, 0)}, "too many nodes"),
    ("all_reduce_add", {"contributors": (1,)}, "not there"),
    ("all_reduce_add", {"b": {"buffer": "y"}}, "adds to one buffer and writes another"),
    ("take_rows", {"out": {"buffer": "y"}}, "has no rows of logits"),
    ("gather_logits", {"owners": ()}, "are not the vocabulary"),
    ("gather_logits", {"owners": ((0, 1, 50),)}, "do not follow each other"),
    ("gather_logits", {"owners": ((0, 0, 49),)}, "its own range has another width"),
    ("gather_logits", {"owners": ((0, -1, 50),)}, "do not follow each other"),
    ("gather_logits", {"owners": ((7, 0, 50),)}, "not there"),
    ("gather_logits", {"out": {"width": 8}}, "its output is not the vocabulary"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "words"), WRONG_OPS)
def test_an_operation_that_does_not_fit_is_refused(
    kind: str, changes: Mapping[str, Any], words: str
) -> None:
    program = changed(program_of(), kind, **changes)
    name = next(op.name for op in program.ops if op.kind == kind)
    sentence = refusal(program)
    assert sentence.startswith(f"operation {name} does not fit its program: "), sentence
    assert words in sentence


def with_cache(program: Program, **changes: int) -> Program:
    first, *others = program.caches
    return replace(program, caches=(replace(first, **changes), *others))


def turned_by(*frequencies: float) -> tuple[RopeTable]:
    return (RopeTable(frequencies=frequencies),)


WRONG_PROGRAMS: dict[str, tuple[Callable[[Program], Program], str]] = {
    "nodes": (lambda p: replace(p, num_nodes=0), "none of its nodes"),
    "many nodes": (lambda p: replace(p, num_nodes=HUGE), "none of its nodes"),
    "node": (lambda p: replace(p, node=-1), "none of its nodes"),
    "width": (lambda p: replace(p, hidden_size=-5), "its width or its vocabulary"),
    "vocabulary": (lambda p: replace(p, vocab_size=0), "its width or its vocabulary"),
    "caches": (lambda p: replace(p, caches=p.caches * 5000), "too many KV caches"),
    "heads": (lambda p: with_cache(p, kv_heads=-1), "KV cache"),
    "keys": (lambda p: with_cache(p, k_dim=0), "KV cache"),
    "values": (lambda p: with_cache(p, v_dim=1 << 20), "KV cache"),
    "keys and values": (lambda p: with_cache(p, v_dim=8), "have other widths"),
    "frequency": (
        lambda p: replace(p, frequencies=turned_by(float("nan"))),
        "a frequency",
    ),
    "fast": (lambda p: replace(p, frequencies=turned_by(1e300)), "a frequency"),
    "frequencies": (
        lambda p: replace(p, frequencies=turned_by(*(0.0,) * 10_000)),
        "too many frequencies",
    ),
    "tables": (lambda p: replace(p, frequencies=p.frequencies * 100), "too many tables"),
    "buffer": (
        lambda p: replace(p, buffers={**p.buffers, "more": Buffer(name="more", width=-16)}),
        "a buffer's width",
    ),
    "operations": (lambda p: replace(p, ops=p.ops * 2000), "too many operations"),
}


@pytest.mark.parametrize("wrong", WRONG_PROGRAMS)
def test_a_program_that_makes_no_sense_is_refused(wrong: str) -> None:
    change, words = WRONG_PROGRAMS[wrong]
    weights = weights_of(program_of())
    with pytest.raises(ValueError, match="this program cannot be run: ") as caught:
        NativeExecutor(change(program_of()), weights, OPTIONS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_rows": 0}, "rows of a step"),
        ({"max_rows": HUGE}, "rows of a step"),
        ({"num_pages": -1}, "KV pages"),
        ({"num_pages": HUGE}, "KV pages"),
        ({"max_pages": HUGE}, "KV pages"),
        ({"threads": 0}, "threads"),
        ({"threads": 100_000}, "threads"),
        ({"overlap_rows": HUGE}, "rows that overlap"),
        ({"fetch_ahead": 1 << 40}, "fetching so far ahead"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    assert words in refusal(program_of(), options=replace(OPTIONS, **options))


def test_more_rows_than_can_be_numbered_are_refused() -> None:
    """Blocks, heads and groups of all rows are counted by ints."""
    wide = 1 << 12
    x, grid = View(buffer="x", offset=0, width=wide), View(buffer="grid", offset=0, width=wide)
    op = Op(
        kind="all_reduce_add", name="sum", inputs=(grid, x), outputs=(x,),
        attributes={"tag": 1, "group": (0,), "contributors": (0,)},
    )  # fmt: skip
    program = Program(
        node=0, num_nodes=1, hidden_size=1, vocab_size=1,
        buffers={"x": Buffer(name="x", width=wide),
                 "grid": Buffer(name="grid", width=wide, dtype="grid")},
        weights={}, vectors={}, ops=(op,),
    )  # fmt: skip
    weights = Weights(arena=_native.Arena(64), matrices={}, vectors={})
    NativeExecutor(program, weights, replace(OPTIONS, max_rows=(1 << 19) - 1))
    with pytest.raises(ValueError, match="more than can be numbered"):
        NativeExecutor(program, weights, replace(OPTIONS, max_rows=1 << 19))


def test_sums_of_more_units_than_the_grid_holds_are_refused() -> None:
    """Each unit's sum may be nearly 2^51 steps; 4096 of them are more than int64."""
    for columns, words in ((4095, ""), (4096, "too many units")):
        matrices = [matrix("w", 16, columns, 1)]
        arena = _native.Arena(_native.matrix_bytes("f32", 16, columns, 1))
        weights = Weights(
            arena=arena, matrices={"w": _native.Matrix(arena, "f32", 16, columns, 1)}, vectors={}
        )  # fmt: skip
        program = products(matrices, on_grid=True)
        if not words:
            NativeExecutor(program, weights, OPTIONS)
            continue
        with pytest.raises(ValueError, match=words):
            NativeExecutor(program, weights, OPTIONS)


def test_threads_that_the_system_does_not_start_are_a_sentence() -> None:
    code = """
import resource
from bandweave import _native
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
try:
    _native.PlainRead(200, 1 << 20)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("this system starts no 200 threads ("), done.stderr
    assert done.stdout.endswith("): ask for fewer, or raise its limit\n")


# --- the mesh ---


def test_a_node_that_is_linked_to_none_runs_no_part_of_several() -> None:
    assert "linked to none" in refusal(program_of(0, (1, 1)))
    assert "linked to none" in refusal(program_of(1, (1, 1)))


def test_the_links_must_be_those_of_the_program() -> None:
    assert "another node" in refusal(program_of(0, (1, 1)), exchange(1, 2))
    assert "another node" in refusal(program_of(0, (1, 1)), exchange(0, 3))
    assert "another node" in refusal(program_of(), exchange(0, 2))
    lonely = _native.Exchange(0, ["node 0", "node 1"], 1, 5.0, False)
    assert "not linked to all" in refusal(program_of(0, (1, 1)), lonely)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("send", {"peers": (0,)}, "its peers are not other nodes"),
        ("send", {"peers": ()}, "its peers are not other nodes"),
        ("send", {"peers": (1, 1)}, "twice"),
        ("send", {"peers": (-1,)}, "not there"),
        ("gather_logits", {"owners": ((1, 0, 25), (1, 25, 50))}, "twice"),
    ],
)
def test_messages_to_nodes_that_are_not_there_are_refused(
    kind: str, changes: Mapping[str, Any], words: str
) -> None:
    program = changed(program_of(0, (1, 1), stages=2), kind, **changes)
    with pytest.raises(ValueError) as caught:
        NativeExecutor(
            program, weights_of(program_of(0, (1, 1), stages=2)), OPTIONS, exchange(0, 2)
        )
    assert words in str(caught.value)


def test_an_exchange_has_one_link_to_each_other_node() -> None:
    names = ["node 0", "node 1"]
    for node, found in ((2, names), (-1, names), (0, [])):
        with pytest.raises(ValueError, match="is none of"):
            _native.Exchange(node, found, 1, 5.0, False)
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="bound for stalls"):
            _native.Exchange(0, names, 1, seconds, False)
    a = _native.Exchange(0, names, 1, 5.0, False)
    for peer in (0, 2, -1):
        left, right = socket.socketpair()
        with pytest.raises(ValueError, match="needs no link"):
            a.add_tcp(peer, left.detach())
        assert right.recv(1) == b""  # what it took over is closed
        right.close()
    pair_link(a, _native.Exchange(1, names, 1, 5.0, False), 0, 1)
    left, right = socket.socketpair()
    with pytest.raises(ValueError, match="needs no link"):
        a.add_tcp(1, left.detach())
    right.close()


# --- steps ---


def test_steps_that_make_no_sense_are_refused() -> None:
    program = program_of()
    executor = NativeExecutor(program, weights_of(program), OPTIONS)
    book = Book(num_sequences=2, pages_each=2)
    step = book.step([(0, [1, 2, 3]), (1, [4])])

    def refused(step: Step, words: str) -> None:
        rows = np.zeros((len(step.tokens), SPEC.hidden_size), np.float32)
        with pytest.raises(ValueError, match=words):
            executor.run(step, rows)

    def with_(name: str, index: int, value: int) -> Step:
        values = getattr(step, name).copy()
        values.reshape(-1)[index] = value
        return replace(step, **{name: values})

    refused(with_("slots", 0, 2), "names a sequence")
    refused(with_("slots", 0, -1), "names a sequence")
    refused(with_("positions", 0, 128), "beyond its page table")
    refused(with_("positions", 3, -1), "beyond its page table")
    refused(with_("positions", 3, HUGE), "beyond its page table")
    refused(with_("page_tables", 0, 4), "a page that does not exist")
    refused(with_("page_tables", 0, -1), "a page that does not exist")
    refused(replace(step, page_tables=np.zeros((17, 2), np.int32)), "17 sequences")
    refused(replace(step, page_tables=np.zeros((2, 5), np.int32)), "page tables of 1 to 4 pages")
    assert len(executor.run(step, np.zeros((4, SPEC.hidden_size), np.float32))) == 4


def test_only_node_0_opens_steps_and_only_others_follow() -> None:
    first = NativeExecutor(program_of(0, (1, 1)), weights_of(program_of(0, (1, 1))), OPTIONS,
                           exchange(0, 2))  # fmt: skip
    other = NativeExecutor(program_of(1, (1, 1)), weights_of(program_of(1, (1, 1))), OPTIONS,
                           exchange(1, 2))  # fmt: skip
    step = Book(num_sequences=1, pages_each=1).step([(0, [1])])
    with pytest.raises(ValueError, match="node 0 follows nobody"):
        first.follow()
    with pytest.raises(ValueError, match="only node 0 opens steps"):
        other.run(step, np.zeros((1, SPEC.hidden_size), np.float32))


def test_logits_that_no_operation_makes_are_refused() -> None:
    program = program_of()
    program = replace(program, ops=tuple(op for op in program.ops if op.kind != "gather_logits"))
    executor = NativeExecutor(program, weights_of(program_of()), OPTIONS)
    step = Book(num_sequences=1, pages_each=1).step([(0, [1])])
    rows = np.zeros((1, SPEC.hidden_size), np.float32)
    for ask in (executor.run, executor.best):
        with pytest.raises(ValueError, match="asks for logits, which this program does not make"):
            ask(step, rows)


# --- norms wider than the model ---

WIDTH, VOCABULARY = 1500, 50


def wide_norm_program() -> tuple[Program, MemorySource]:
    """The rows go through a norm 23 times as wide as they are, before a product that does it."""
    hidden = SPEC.hidden_size
    shapes = {"up": (WIDTH, hidden), "head": (VOCABULARY, WIDTH), "norm": (WIDTH,)}
    tensors = {name: bell(1, name, shape) / np.float32(8) for name, shape in shapes.items()}

    def view(name: str, width: int) -> View:
        return View(buffer=name, offset=0, width=width)

    def part(name: str) -> Part:
        shape = shapes[name]
        columns = Range(start=0, stop=shape[1]) if len(shape) > 1 else None
        rows = Range(start=0, stop=shape[0])
        unit = SplitUnit(columns=False, size=shape[0])
        return Part(tensor=name, rows=rows, columns=columns, unit=unit)

    def matrix(name: str) -> Weight:
        outputs, inputs = shapes[name]
        return Weight(name=name, parts=(part(name),), outputs=outputs, inputs=inputs, unit=inputs)

    widths = {"x": hidden, "taken": hidden, "wide": WIDTH, "normal": WIDTH, "own": VOCABULARY,
              "logits": VOCABULARY}  # fmt: skip
    ops = (
        Op(kind="embed", name="embed", outputs=(view("x", hidden),),
           attributes={"tag": 1, "group": (0,)}),
        Op(kind="take_rows", name="take", inputs=(view("x", hidden),),
           outputs=(view("taken", hidden),)),
        Op(kind="linear", name="up", inputs=(view("taken", hidden),),
           outputs=(view("wide", WIDTH),), weight="up"),
        Op(kind="rms_norm", name="norm", inputs=(view("wide", WIDTH),),
           outputs=(view("normal", WIDTH),), vector="norm",
           attributes={"groups": 1, "dim": WIDTH, "eps": 1e-5}),
        Op(kind="linear", name="head", inputs=(view("normal", WIDTH),),
           outputs=(view("own", VOCABULARY),), weight="head"),
        Op(kind="gather_logits", name="gather", inputs=(view("own", VOCABULARY),),
           outputs=(view("logits", VOCABULARY),),
           attributes={"tag": 2, "owners": ((0, 0, VOCABULARY),)}),
    )  # fmt: skip
    program = Program(
        node=0, num_nodes=1, hidden_size=hidden, vocab_size=VOCABULARY,
        buffers={name: Buffer(name=name, width=width, rows="step" if name == "x" else "logits")
                 for name, width in widths.items()},
        weights={name: matrix(name) for name in ("up", "head")},
        vectors={"norm": Vector(name="norm", parts=(part("norm"),), size=WIDTH)},
        ops=ops,
    )  # fmt: skip
    return program, MemorySource(tensors=tensors)


@pytest.mark.parametrize("isa", _native.isa_variants())
@pytest.mark.parametrize("weight_format", ["q4", "q8", "bf16", "f32"])
def test_a_norm_wider_than_the_model_gives_the_reference_bytes(
    weight_format: str, isa: str
) -> None:
    program, source = wide_norm_program()
    oracle = ReferenceExecutor(
        program, load_reference(program, source, weight_format), num_pages=1, kv_dtype="f16",
        exchange=None,
    )  # fmt: skip
    weights = load_weights(program, source, weight_format)
    for threads in (1, 3):
        native = NativeExecutor(program, weights, replace(OPTIONS, threads=threads, isa=isa))
        book = Book(num_sequences=1, pages_each=1)
        for tokens in ([1], [1, 2, 3, 4, 5]):
            step = book.step([(0, tokens)])
            rows = bell(2, str(tokens), (len(tokens), SPEC.hidden_size))
            assert native.run(step, rows).tobytes() == oracle.run(step, rows).tobytes()


# --- the module ---


def test_a_process_that_ends_in_the_midst_of_work_complains_of_nothing() -> None:
    """A daemon thread still holds matrices when the interpreter ends, as one does that stores
    weights in the cache."""
    code = """
import threading
from bandweave import _native
arena = _native.Arena(1 << 20)
held = [_native.Matrix(arena, "q4", 16, 32, 32) for _ in range(100)]
started = threading.Event()
def store(matrices=held):
    started.set()
    threading.Event().wait()
threading.Thread(target=store, daemon=True).start()
started.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
