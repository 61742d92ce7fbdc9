"""The native executor gives the reference executor's bytes, on every ISA variant."""

from __future__ import annotations

import ast
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bandweave
from bandweave import _native
from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.native import NativeExecutor
from bandweave.executors.reference.math import exp
from bandweave.formats.packing import pack
from bandweave.formats.registry import get_format
from bandweave.probing.programs import matrix, products
from bandweave.programs.encoding import encode
from bandweave.programs.program import CacheShape
from bandweave.weights.packed import Weights
from tests.exhaustive.cases import covering_array
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import (
    ODD_SPECS,
    MemorySource,
    random_source,
    random_tensors,
    tiny_spec,
)
from tests.helpers.reference_nodes import Book, ReferenceNodes

FORMATS = ("f32", "bf16", "q8", "q4", "mxfp4", "nf4", "ulaw4")
# Every pair of a model, a format and a variant. Formats of 4 bits differ by their tables alone: not
# every one of them needs every shape, but each variant has loops of its own for it.
CASES = [
    *covering_array(
        {"name": list(ODD_SPECS), "weight_format": FORMATS[:4], "isa": _native.isa_variants()},
        set(),
    ),
    *(
        {"name": name, "weight_format": weight_format, "isa": isa}
        for isa in _native.isa_variants()
        for name, weight_format in zip(
            ("biases", "biased_experts", "latent_queries"), FORMATS[4:], strict=True
        )
    ),
]


def conversation(engine, num_pages: int, vocab: int) -> np.ndarray:
    """Logits of a batch: two prefills of unequal length, then decoding rows and another chunk."""
    tokens = np.random.default_rng(7).integers(0, vocab, size=400).tolist()
    book = Book(num_sequences=2, pages_each=num_pages // 2)
    steps = [
        book.step([(0, tokens[:70]), (1, tokens[70:75])]),
        book.step([(0, tokens[75:76]), (1, tokens[76:77])]),
        book.step([(1, tokens[77:137]), (0, tokens[137:138])], all_logits=False),
        book.step([(0, tokens[138:139])]),
    ]
    return np.concatenate([engine.run(step) for step in steps])


_REFERENCE: dict[tuple[str, str, str], np.ndarray] = {}


def reference(name: str, weight_format: str, kv: str) -> np.ndarray:
    key = (name, weight_format, kv)
    if key not in _REFERENCE:
        spec = ODD_SPECS[name]
        source = random_source(spec, 3, bf16=True)
        with ReferenceNodes(
            spec, source, weight_format=weight_format, kv_dtype=kv, num_pages=6
        ) as engine:
            _REFERENCE[key] = conversation(engine, 6, spec.vocab_size)
    return _REFERENCE[key]


@pytest.mark.parametrize(("name", "weight_format", "isa"), [tuple(case.values()) for case in CASES])
def test_native_gives_the_reference_bytes(name: str, weight_format: str, isa: str) -> None:
    kv = "f32" if weight_format in ("f32", "q8") else "f16"
    spec = ODD_SPECS[name]
    with NativeNodes(
        spec,
        random_source(spec, 3, bf16=True),
        weight_format=weight_format,
        kv_format=kv,
        num_pages=6,
        isa=isa,
    ) as engine:
        got = conversation(engine, 6, spec.vocab_size)
    expected = reference(name, weight_format, kv)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("weight_format", FORMATS[:5])
def test_sums_of_any_size_are_exact(weight_format: str) -> None:
    """Some outputs' units exceed 2^31 grid steps, so that int32 lanes do not hold them."""
    spec = ODD_SPECS["ten_heads_of_8"]
    tensors = random_tensors(spec, 3, bf16=True)
    for name, values in tensors.items():
        if name.endswith(("down_proj", "o_proj")):
            values[::3] *= np.float32(4096)
    source = MemorySource(tensors=tensors, stored="bf16")
    with ReferenceNodes(spec, source, weight_format=weight_format, num_pages=6) as oracle:
        expected = conversation(oracle, 6, spec.vocab_size)
    for isa in _native.isa_variants():
        with NativeNodes(spec, source, weight_format=weight_format, num_pages=6, isa=isa) as engine:
            assert conversation(engine, 6, spec.vocab_size).tobytes() == expected.tobytes(), isa


@pytest.mark.parametrize("together", [1, 2, 3, 4, 5, 6, 7, 8, 11])
def test_any_number_of_heads_may_share_a_kv_head(together: int) -> None:
    """Kernels take as many of them as they have registers for."""
    spec = tiny_spec(num_heads=2 * together, num_kv_heads=2, head_dim=20)
    source = random_source(spec, 3, bf16=True)
    with ReferenceNodes(spec, source, weight_format="f32", num_pages=6) as oracle:
        expected = conversation(oracle, 6, spec.vocab_size)
    for isa in _native.isa_variants():
        with NativeNodes(
            spec, source, weight_format="f32", num_pages=6, isa=isa, threads=2
        ) as engine:
            assert conversation(engine, 6, spec.vocab_size).tobytes() == expected.tobytes(), isa


@pytest.mark.parametrize(
    ("heads", "window"), [(2, None), (2, 64), (4, 30), (4, 192), (6, 100), (6, None)]
)
def test_rows_of_a_prompt_read_keys_together(heads: int, window: int | None) -> None:
    """In chunks that begin and end anywhere in a page, beside rows of another sequence."""
    spec = tiny_spec(family="qwen3", qk_norm="head", num_heads=heads, num_kv_heads=2, window=window)
    source = random_source(spec, 3, bf16=True)
    tokens = np.random.default_rng(7).integers(0, spec.vocab_size, size=300).tolist()

    def run(engine) -> bytes:
        book = Book(num_sequences=2, pages_each=5)
        cuts = (0, 130, 131, 134, 260)
        steps = [
            book.step([(0, tokens[a:b]), (1, tokens[a:b:2])])
            for a, b in zip(cuts, cuts[1:], strict=False)
        ]
        return b"".join(engine.run(step).tobytes() for step in steps)

    with ReferenceNodes(spec, source, weight_format="f32", num_pages=10) as oracle:
        expected = run(oracle)
    for isa in _native.isa_variants():
        with NativeNodes(
            spec, source, weight_format="f32", num_pages=10, isa=isa, threads=2
        ) as engine:
            assert run(engine) == expected, isa


@pytest.mark.parametrize("weight_format", FORMATS[:5])
def test_a_large_model_tries_how_far_to_fetch_ahead(weight_format: str) -> None:
    """Which way is quicker is the machine's to say; the answer is the same."""
    outputs, inputs = 4096, 2048
    each = _native.matrix_bytes(weight_format, outputs, inputs, inputs)
    names = [f"w{number}" for number in range((96 << 20) // each + 1)]
    program = products([matrix(name, outputs, inputs, inputs) for name in names], on_grid=False)
    arena = _native.Arena(each * len(names))
    matrices = {
        name: _native.Matrix(arena, weight_format, outputs, inputs, inputs) for name in names
    }
    weights = Weights(arena=arena, matrices=matrices, vectors={})
    found = NativeExecutor(program, weights, ExecutorOptions(num_pages=1, max_pages=1, threads=2))
    assert found.fetch_ahead in (0, 4096)
    asked = ExecutorOptions(num_pages=1, max_pages=1, fetch_ahead=512)
    assert NativeExecutor(program, weights, asked).fetch_ahead == 512


@pytest.mark.parametrize("isa", _native.isa_variants())
def test_exp_is_the_reference_exp(isa: str) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [rng.uniform(-110, 95, 20000), rng.normal(size=20000), [0.0, -0.0, np.inf, -np.inf, 88.8]]
    ).astype(np.float32)
    assert _native.exp(x, isa).tobytes() == exp(x).tobytes()


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("outputs", "inputs", "unit"), [(16, 64, 64), (5, 172, 64), (37, 40, 8)])
def test_native_packs_like_the_oracle(
    weight_format: str, outputs: int, inputs: int, unit: int
) -> None:
    rng = np.random.default_rng(outputs)
    weights = rng.normal(size=(outputs, inputs)).astype(np.float32)
    weights[0, :unit] = 0
    weights[2] *= np.ldexp(np.float32(1), -rng.integers(0, 149, size=inputs))  # some below 2^-40
    weights[1, 0] = 1e30 if weight_format in ("f32", "bf16") else 1e3
    size = _native.matrix_bytes(weight_format, outputs, inputs, unit)
    packed = _native.Matrix(_native.Arena(size), weight_format, outputs, inputs, unit)
    packed.clear()
    packed.pack(0, weights[:3])
    packed.pack(3, weights[3:])
    expected = pack(get_format(weight_format).quantise(weights, unit))
    assert packed.panels.tobytes() == np.asarray(expected).tobytes()


def test_an_executor_that_cannot_be_made_holds_nothing() -> None:
    def mapped_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def fail() -> None:
        size = 64 << 20
        caches = (CacheShape(kv_heads=4096, k_dim=8192, v_dim=8192),) * 4096
        encoded = encode(replace(products([matrix("w", 16, 64, 64)], on_grid=False), caches=caches))
        held = _native.Matrix(_native.Arena(size), "f32", 16, 64, 64)
        program = _native.Program(encoded, [held], [])
        exchange = _native.Exchange(0, ["node 0"], 1, 1.0, False)
        with pytest.raises(MemoryError):  # so many pages are more than addresses
            _native.Executor(
                program, 1, 2**24, 2**20, True, 2, [], False, "", "exact", 1, 1, 0, exchange
            )

    fail()
    before = mapped_bytes()
    for _ in range(8):
        fail()
    assert mapped_bytes() - before < 4 * (64 << 20)


def test_the_stub_names_what_the_module_has() -> None:
    stub = ast.parse((Path(bandweave.__file__).parent / "_native.pyi").read_text())
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            assert hasattr(_native, node.name), node.name
        if isinstance(node, ast.ClassDef):
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            there = vars(getattr(_native, node.name))
            public = {name for name in there if not name.startswith("_")}
            assert members - {"__init__"} == public or node.name == "StepError", node.name
