"""Products with GGUF's blocks as they are stored: the rules by single numbers, the reference
executor, and the kernels of every variant (docs/numerics.md, section 16).

Suffixes: T rows, N outputs, K inputs, X bytes of a row of blocks.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from bandweave import _native
from bandweave.executors.reference.products import (
    NumbersError,
    linear,
    linear_grid,
    quantise_activations,
    unit_sums,
)
from bandweave.formats.block_matrix import BlockMatrix, block_integers
from bandweave.formats.block_types import BLOCK_TYPES
from bandweave.formats.gguf_blocks import RUNS_AS, as_stored, block_size
from bandweave.formats.matrix import Matrix
from tests.helpers.gguf_blocks import (
    HALVES,
    native_product,
    packed,
    put_halves,
    random_blocks,
)
from tests.helpers.random_model import F32, bell
from tests.test_reference_math import f32
from tests.test_reference_products import fma

ISAS = _native.isa_variants()
SOURCES = tuple(RUNS_AS)


# --- the rules, one number at a time ---


def slow_unit_sum(a_K: list[int], scale_G: F32, matrix: BlockMatrix, n: int, unit: range) -> float:
    kind, q_K = matrix.type, block_integers(matrix)[n].tolist()
    acc = 0.0
    for start in range(unit.start, unit.stop, kind.columns):
        block = start // kind.columns
        d = float(matrix.d_NB[n, block])
        first = second = 0.0
        for group in range(start // 32, (start + kind.columns) // 32):
            whole, t, scale = 0, 0.0, float(scale_G[group])
            for begin in range(32 * group, 32 * group + 32, kind.sub):
                columns = range(begin, begin + kind.sub)
                s = 1 if matrix.s_NS is None else int(matrix.s_NS[n, begin // kind.sub])
                whole += s * sum(q_K[k] * a_K[k] for k in columns)
                t = f32(Fraction(sum(a_K[k] for k in columns)) * Fraction(scale))
                if matrix.mins_NS is not None:
                    second = fma(float(matrix.mins_NS[n, begin // kind.sub]), t, second)
            assert abs(whole) < 2**24
            if kind.columns == 256:
                first = fma(float(whole), scale, first)
                continue
            acc = fma(float(whole), f32(Fraction(d) * Fraction(scale)), acc)
            if matrix.m_NB is not None:
                acc = fma(float(matrix.m_NB[n, block]), t, acc)
        if kind.columns == 256:
            acc = fma(d, first, acc)
            if matrix.m_NB is not None:
                acc = fma(-float(matrix.m_NB[n, block]), second, acc)
    return acc


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_unit_sums(name: str) -> None:
    columns = BLOCK_TYPES[name].columns
    inputs, unit = 4 * columns, 2 * columns
    blocks_NX = random_blocks(np.random.default_rng(1), name, 2, inputs)
    matrix = as_stored(name, blocks_NX, unit)
    assert isinstance(matrix, BlockMatrix)
    x_TK = bell(1, "x", (2, inputs))
    x_TK[1, :40] = 0
    x_TK[1, 40:90] *= np.float32(1e-11)
    a_TGE, scale_TG = quantise_activations(x_TK, matrix.groups, 127)
    a_TK = a_TGE.reshape(2, inputs).astype(int).tolist()
    for y_TN, elements in zip(unit_sums(x_TK, matrix), matrix.groups.units, strict=True):
        expected = [
            [slow_unit_sum(a_K, scale_G, matrix, n, elements) for n in range(2)]
            for a_K, scale_G in zip(a_TK, scale_TG, strict=True)
        ]
        assert y_TN.tolist() == expected


# --- the kernels ---


def expected_product(x_TK: F32, matrix: Matrix) -> npt.NDArray[np.generic]:
    if matrix.unit < matrix.shape[1]:
        return linear_grid(x_TK, matrix)
    y_TN = linear(x_TK, matrix, None)
    return np.where(np.abs(y_TN) < 2.0**-40, np.float32(0), y_TN)


def check(
    source: str, blocks_NX: npt.NDArray[np.uint8], x_TK: F32, unit: int, isa: str, rows: list[int],
    *, flush: bool = False,
) -> None:  # fmt: skip
    """Some of the rows of ``x`` at a time by the kernels, all of them by the reference."""
    matrix = as_stored(source, blocks_NX, unit)
    expected_TN = expected_product(x_TK, matrix)
    held = packed(source, blocks_NX, unit)
    for many in rows:
        got_TN = native_product(held, x_TK[:many], len(blocks_NX), unit, isa=isa, flush=flush)
        assert got_TN.tobytes() == np.ascontiguousarray(expected_TN[:many]).tobytes(), many


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("unit", [1024, 256])
def test_the_kernels_give_the_reference_bytes(source: str, unit: int, isa: str) -> None:
    blocks_NX = random_blocks(np.random.default_rng(2), source, 37, 1024)
    x_TK = bell(3, "x", (75, 1024))
    x_TK[0, :40] = 0
    x_TK[2] *= np.float32(300)
    check(source, blocks_NX, x_TK, unit, isa, [1, 2, 3, 4, 7, 9, 75])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_largest_integers_there_are(source: str, isa: str) -> None:
    """Bits all set, none set and both, so that codes and scales are at their ends, with activations
    at theirs: no sum on the way overflows."""
    columns, size = block_size(source)
    for byte in (0xFF, 0x00, 0x7F, 0x80, 0x0F, 0xF0):
        blocks_NX = np.full((16, 2 * size), byte, np.uint8)
        if source == "mxfp4":
            blocks_NX[:, ::size] = 120
        for which in range(len(HALVES[source])):
            put_halves(blocks_NX, source, 0.01, which)
        x_TK = np.ones((9, 2 * columns), np.float32)
        x_TK[1] = -1
        x_TK[2, ::2] = x_TK[3, 1::2] = x_TK[4, 16::32] = -1
        check(source, blocks_NX, x_TK, 2 * columns, isa, [1, 9])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_flushing_machine_gives_the_reference_bytes(source: str, isa: str) -> None:
    """With scales that are subnormal as float16 and activations down to the smallest there are."""
    rng = np.random.default_rng(4)
    blocks_NX = random_blocks(rng, source, 21, 512, size=2e-7)
    if source == "mxfp4":
        blocks_NX[:, ::17] = rng.integers(80, 100, (21, 16))
    x_TK = bell(5, "x", (9, 512))
    exponents_TG = rng.integers(-40, 0, (9, 16))
    x_TK = np.ldexp(x_TK, np.repeat(exponents_TG, 32, axis=1)).astype(np.float32)
    x_TK = np.where(np.abs(x_TK) < 2.0**-40, np.float32(0), x_TK)
    for unit in (512, 256):
        for flush in (False, True):
            check(source, blocks_NX, x_TK, unit, isa, [1, 9], flush=flush)
    # Sums that are lost, and others that are not, of what is tiny throughout.
    x_TK = (x_TK * np.float32(2.0**-20)).astype(np.float32)
    x_TK = np.where(np.abs(x_TK) < 2.0**-40, np.float32(0), x_TK)
    check(source, blocks_NX, x_TK, 512, isa, [9], flush=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", [source for source in SOURCES if HALVES[source]])
def test_sums_beyond_int32_and_beyond_the_grid(source: str, isa: str) -> None:
    blocks_NX = random_blocks(np.random.default_rng(6), source, 20, 512)
    put_halves(blocks_NX[3:5], source, 16.0)
    x_TK = bell(7, "x", (9, 512))
    check(source, blocks_NX, x_TK, 256, isa, [9])
    put_halves(blocks_NX[3:5], source, 60000.0)
    x_TK *= np.float32(1e5)
    with pytest.raises(NumbersError, match="the limit is 2"):
        linear_grid(x_TK, as_stored(source, blocks_NX, 256))
    with pytest.raises(_native.StepError, match="too large for the grid"):
        native_product(packed(source, blocks_NX, 256), x_TK, 20, 256, isa=isa)
