"""GGUF's blocks: what they stand for, what packing keeps of them, and what is refused.

Suffixes: N outputs, X bytes of a row, K inputs.
"""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from bandweave import _native
from bandweave.formats import packing
from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.block_types import BLOCK_TYPES
from bandweave.formats.gguf_blocks import RUNS_AS, as_stored, block_size, widen_blocks
from bandweave.formats.matrix import Matrix, QuantisedMatrix
from bandweave.formats.names import BLOCK_FORMATS
from bandweave.formats.registry import FORMAT_NAMES, get_format
from bandweave.formats.sizes import packed_bytes
from tests.helpers.gguf_blocks import HALVES, packed, put_halves, random_blocks

SOURCES = tuple(RUNS_AS)
BITS = {
    "q4_1": 5.0, "q5_0": 5.5, "q5_1": 6.0, "iq4_nl": 4.5, "q2_k": 2.625, "q3_k": 3.5625,
    "q4_k": 4.625, "q5_k": 5.625, "q6_k": 6.5625, "iq4_xs": 4.3125,
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_values_are_those_of_ggml(source: str) -> None:
    blocks_NX = random_blocks(np.random.default_rng(1), source, 37, 1024, size=2.0)
    expected_NK = dequantize(blocks_NX, GGMLQuantizationType[source.upper()])
    assert np.array_equal(widen_blocks(source, blocks_NX), expected_NK)
    assert np.array_equal(_native.widen_blocks(source, blocks_NX), expected_NK)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [1e-7, 1e-3, 300.0])
def test_widening_rounds_as_the_oracle_does(source: str, size: float) -> None:
    """Scales that are subnormal as float16, and such as cancel against minima."""
    blocks_NX = random_blocks(np.random.default_rng(2), source, 19, 768, size=size)
    wide_NK = _native.widen_blocks(source, blocks_NX)
    assert wide_NK.tobytes() == widen_blocks(source, blocks_NX).tobytes()
    turned = np.asfortranarray(np.repeat(blocks_NX, 2, axis=0))[::2]
    assert _native.widen_blocks(source, np.ascontiguousarray(turned)).tobytes() == wide_NK.tobytes()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("outputs", "inputs", "unit"), [(5, 256, 256), (33, 1024, 512)])
def test_packing_keeps_the_very_bits(source: str, outputs: int, inputs: int, unit: int) -> None:
    blocks_NX = random_blocks(np.random.default_rng(outputs), source, outputs, inputs)
    matrix: Matrix = as_stored(source, blocks_NX, unit)
    data = packing.pack(matrix)
    assert packed(source, blocks_NX, unit).panels.tobytes() == data.tobytes()
    assert len(data) == packed_bytes(matrix.format, outputs, inputs, unit)
    again = packing.unpack(data, format=matrix.format, outputs=outputs, inputs=inputs, unit=unit)
    assert type(again) is type(matrix)
    for name, values in vars(matrix).items():
        assert np.array_equal(getattr(again, name), values), name
    values_NK = get_format(matrix.format).dequantise(matrix)
    assert np.array_equal(values_NK, widen_blocks(source, blocks_NX))


def test_a_panel_byte_by_byte() -> None:
    """The layout of block_packing, taken at its word."""
    for name, kind in BLOCK_TYPES.items():
        rng = np.random.default_rng(3)
        inputs = 2 * kind.columns
        matrix = as_stored(name, random_blocks(rng, name, 21, inputs), inputs)
        assert isinstance(matrix, BlockMatrix)
        expected = bytearray()
        for first in (0, 16):
            for block in range(2):
                expected += panel_block(matrix, first, block)
        assert packing.pack(matrix).tobytes() == bytes(expected), name


def panel_block(matrix: BlockMatrix, first: int, block: int) -> bytes:
    kind, outputs = matrix.type, range(first, first + 16)

    def of(values, n: int, at: int) -> int:
        return int(values[n, at]) if n < len(matrix.q_NK) else 0

    out = bytearray()
    for halves in (matrix.d_NB, matrix.m_NB):
        if halves is not None:
            for n in outputs:
                out += halves[n, block].tobytes() if n < len(halves) else b"\0\0"
    runs = range(block * kind.subs, (block + 1) * kind.subs)
    for s in runs:
        for n in outputs:
            scale = of(matrix.s_NS, n, s) & 255
            if kind.scales == "nibbles":
                scale |= of(matrix.mins_NS, n, s) << 4
            out.append(scale)
    if kind.minima and kind.scales == "unsigned":
        for s in runs:
            out += bytes(of(matrix.mins_NS, n, s) for n in outputs)
    for start in range(block * kind.columns, (block + 1) * kind.columns, 32):

        def code(n: int, element: int, start: int = start) -> int:
            return of(matrix.q_NK, n, start + element)

        places = [(n, b) for n in outputs for b in range(4)]
        if kind.bits >= 4:
            for j in range(4):
                out += bytes(
                    code(n, 4 * j + b) & 15 | (code(n, 16 + 4 * j + b) & 15) << 4 for n, b in places
                )
        above = 4 if kind.bits >= 4 else 0
        if kind.bits in (2, 3, 6):
            for p in range(2):
                elements = (8 * p, 16 + 8 * p, 8 * p + 4, 20 + 8 * p)
                out += bytes(
                    sum((code(n, e + b) >> above & 3) << 2 * i for i, e in enumerate(elements))
                    for n, b in places
                )
        if kind.bits in (3, 5):
            top = kind.bits - 1
            out += bytes(
                sum(
                    (code(n, 4 * j + b) >> top) << 2 * j
                    | (code(n, 16 + 4 * j + b) >> top) << 2 * j + 1
                    for j in range(4)
                )
                for n, b in places
            )
    return bytes(out)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_blocks_become_any_other_format(source: str, format: str) -> None:
    """Also the format that would keep them, where a unit cuts their blocks."""
    blocks_NX = random_blocks(np.random.default_rng(4), source, 18, 512)
    unit = 24
    expected = get_format(format).quantise(widen_blocks(source, blocks_NX), unit)
    got = packed(source, blocks_NX, unit, format).panels
    assert got.tobytes() == packing.pack(expected).tobytes()


def test_the_smallest_and_the_largest_mxfp4_scales() -> None:
    """Every byte of a scale, with every code: weights below 2^-40 are zeros, those beyond float32
    are refused."""
    refused = 0
    for byte in range(256):
        block = np.zeros((1, 17), np.uint8)
        block[0, 0] = byte
        block[0, 1:] = np.arange(16) * 0x11
        exact_K = widen_blocks("mxfp4", block)[0].astype(np.float64)
        if not np.isfinite(exact_K).all():
            refused += 1
            with pytest.raises(ValueError, match="infinity"):
                _native.widen_blocks("mxfp4", block)
            for refuses in (packed, as_stored):
                with pytest.raises(ValueError, match="infinity|beyond float32"):
                    refuses("mxfp4", block, 32)
            continue
        stored_K = np.where(np.abs(exact_K) < 2.0**-40, 0, exact_K)
        panels = packed("mxfp4", block, 32).panels
        matrix = packing.unpack(panels, format="mxfp4", outputs=1, inputs=32, unit=32)
        assert np.array_equal(get_format("mxfp4").dequantise(matrix)[0], stored_K), byte
        assert panels.tobytes() == packing.pack(as_stored("mxfp4", block, 32)).tobytes(), byte
    assert refused == 3


@pytest.mark.parametrize("source", [source for source in SOURCES if HALVES[source]])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scales_that_are_no_numbers_are_refused(source: str, bad: float) -> None:
    for which in range(len(HALVES[source])):
        blocks_NX = random_blocks(np.random.default_rng(5), source, 3, 256)
        put_halves(blocks_NX[2:], source, bad, which)
        with pytest.raises(ValueError, match="holds a NaN or an infinity"):
            packed(source, blocks_NX, 256)
        with pytest.raises(ValueError, match="holds a NaN or an infinity"):
            packed(source, blocks_NX, 256, "bf16")
        with pytest.raises(ValueError, match="holds a NaN or an infinity"):
            _native.widen_blocks(source, blocks_NX)
        with pytest.raises(ValueError, match="a NaN or an infinity"):
            as_stored(source, blocks_NX, 256)


def test_content_sums_are_of_the_stored_bytes() -> None:
    rng = np.random.default_rng(6)
    for source in SOURCES:
        columns, size = block_size(source)
        blocks_NX = random_blocks(rng, source, 20, 4 * columns)
        each = 2 * columns
        by_rows = _native.content_sums(blocks_NX, 3, 8, 0, source)
        by_columns = _native.content_sums(blocks_NX, 3, 0, each, source)
        bf16_NX = np.ascontiguousarray(blocks_NX).view(np.uint16)  # the same bytes by other names
        assert np.array_equal(by_rows, _native.content_sums(bf16_NX, 3, 8))
        assert np.array_equal(by_columns, _native.content_sums(bf16_NX, 3, 0, size))
        format = RUNS_AS[source]
        arena = _native.Arena(_native.matrix_bytes(format, 20, 4 * columns, columns))
        matrix = _native.Matrix(arena, format, 20, 4 * columns, columns)
        matrix.clear()
        sums = matrix.pack(0, blocks_NX, 3, 0, each, source)
        assert np.array_equal(sums, by_columns)
        with pytest.raises(ValueError, match="whole stored blocks"):
            matrix.pack(0, blocks_NX, 3, 0, columns + 1, source)
        # A range of columns is whole blocks side by side.
        part = _native.content_sums(blocks_NX[:, 2 * size :], 3, 0, each, source)
        assert np.array_equal(part, by_columns[1:])


def test_what_block_formats_refuse() -> None:
    w_NK = np.ones((2, 256), np.float32)
    for name in BLOCK_FORMATS:
        with pytest.raises(ValueError, match=f"can't be made into {name}.*choose one of q4, q8"):
            get_format(name).quantise(w_NK, 256)
        columns = BLOCK_TYPES[name].columns
        sentence = f"{name} has blocks of {columns} columns"
        for inputs, unit in ((columns + 32, columns), (2 * columns, columns // 2), (31, 31)):
            if inputs % columns == 0 and unit % columns == 0:
                continue
            for refuses in (_native.matrix_bytes, packed_bytes):
                with pytest.raises(ValueError, match=sentence):
                    refuses(name, 16, inputs, unit)
            with pytest.raises(ValueError, match=sentence):
                _native.Matrix(_native.Arena(1 << 20), name, 16, inputs, unit)
        arena = _native.Arena(_native.matrix_bytes(name, 2, 256, 256))
        matrix = _native.Matrix(arena, name, 2, 256, 256)
        with pytest.raises(ValueError, match="keeps blocks as a GGUF file stores them"):
            matrix.pack(0, w_NK)
        other = "q4_0" if name != "q4_0" else "q8_0"
        with pytest.raises(ValueError, match="choose another format"):
            matrix.pack(0, random_blocks(np.random.default_rng(7), other, 2, 256), source=other)
        with pytest.raises(ValueError, match=f"rows of {name} are uint8, of whole blocks of"):
            matrix.pack(0, w_NK, source=name)
        with pytest.raises(ValueError, match="rows do not fit the matrix"):
            matrix.pack(0, random_blocks(np.random.default_rng(7), name, 2, 512), source=name)
    with pytest.raises(ValueError, match="stored types are q4_0, q8_0"):
        _native.widen_blocks("q9_k", np.zeros((1, 18), np.uint8))
    with pytest.raises(ValueError, match="'q9_k' is not known; known are q4_0"):
        widen_blocks("q9_k", np.zeros((1, 18), np.uint8))
    with pytest.raises(ValueError, match="whole blocks of 18 bytes"):
        _native.widen_blocks("iq4_nl", np.zeros((1, 19), np.uint8))


def test_bytes_per_weight() -> None:
    found = {name: float(get_format(name).bytes_per_weight) * 8 for name in BLOCK_FORMATS}
    assert found == BITS
    assert tuple(BLOCK_TYPES) == BLOCK_FORMATS
    for name in BLOCK_FORMATS:
        size = _native.matrix_bytes(name, 32, 512, 256)
        assert size == packed_bytes(name, 32, 512, 256) == BITS[name] / 8 * 32 * 512


def test_minus_128_of_q8_0_is_kept() -> None:
    block = np.full((1, 34), 0x80, np.uint8)
    put_halves(block, "q8_0", 0.5)
    matrix = as_stored("q8_0", block, 32)
    assert isinstance(matrix, QuantisedMatrix)
    assert (matrix.q_NK == -128).all()
    assert (packed("q8_0", block, 32).panels[32:].reshape(8, 16, 4)[:, 0] == 0).all()
    assert (get_format("q8").dequantise(matrix) == -64).all()
