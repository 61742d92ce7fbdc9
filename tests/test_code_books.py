"""Formats with code books: their tables, what comes back exactly, ties and the choice of scales.

Suffixes: N outputs, K inputs, G groups.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave import _native
from bandweave.formats import mxfp4, nf4, ulaw4
from bandweave.formats.integers import BOOKS
from bandweave.formats.matrix import QuantisedMatrix
from bandweave.formats.packing import pack, unpack
from bandweave.formats.registry import get_format
from tests.helpers.random_model import F32, bell

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def quantised(name: str, w_NK: F32, unit: int | None = None) -> QuantisedMatrix:
    matrix = get_format(name).quantise(w_NK, unit or w_NK.shape[1])
    assert isinstance(matrix, QuantisedMatrix)
    return matrix


def natively(name: str, w_NK: F32, unit: int) -> np.ndarray:
    outputs, inputs = w_NK.shape
    arena = _native.Arena(_native.matrix_bytes(name, outputs, inputs, unit))
    packed = _native.Matrix(arena, name, outputs, inputs, unit)
    packed.clear()
    packed.pack(0, w_NK)
    return packed.panels


def test_the_books_are_what_their_sources_say() -> None:
    assert mxfp4.BOOK.values == tuple(int(2 * x) for x in E2M1) + tuple(-int(2 * x) for x in E2M1)
    # Appendix E of the QLoRA paper, to four digits.
    normal = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
              0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0)  # fmt: skip
    assert nf4.BOOK.values == tuple(round(63 * x) for x in normal)
    levels = [63 * (2 ** (i / 8) - 1) for i in range(9)]
    expected = [-round(x) for x in levels[:0:-1]] + [round(x) for x in levels[:8]]
    assert list(ulaw4.BOOK.values) == expected
    for book in BOOKS.values():
        assert len(book.values) == 16 and book.values[book.zero] == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(-40, 120), st.integers(1, 100), st.integers(1, 100))
def test_mxfp4_weights_come_back_exactly(seed: int, low: int, inputs: int, unit: int) -> None:
    """Numbers of E2M1 times a power of two for each group, from the smallest that is stored up to
    the largest that float32 has."""
    rng = np.random.default_rng(seed)
    signs_NK = rng.choice([-1.0, 1.0], size=(9, inputs))
    w_NK = rng.choice(E2M1, size=(9, inputs)) * signs_NK
    group_K = quantised("mxfp4", np.ones((1, inputs), np.float32), unit).groups.places_K // 32
    powers_NG = np.ldexp(1.0, rng.integers(low + 1, low + 5, size=(9, int(group_K.max()) + 1)))
    exact_NK = (w_NK * powers_NG[:, group_K]).astype(np.float32)
    exact_NK = np.where(np.abs(exact_NK) < 2.0**-40, np.float32(0), exact_NK)
    matrix = quantised("mxfp4", exact_NK, unit)
    assert np.array_equal(get_format("mxfp4").dequantise(matrix), exact_NK)
    panels = natively("mxfp4", exact_NK, unit)
    assert panels.tobytes() == pack(matrix).tobytes()
    again = unpack(panels, format="mxfp4", outputs=9, inputs=inputs, unit=unit)
    assert np.array_equal(get_format("mxfp4").dequantise(again), exact_NK)


def test_ties_go_to_the_even_code() -> None:
    """As E2M1's rounding to even has it: with 4 the largest, numbers halfway between two."""
    w_NK = np.array([[4.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, -0.25, -0.75, -2.5]], np.float32)
    assert get_format("mxfp4").dequantise(quantised("mxfp4", w_NK)).tolist() == [
        [4.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 0.0, -1.0, -2.0]
    ]
    assert quantised("mxfp4", w_NK).q_NK[0, 7] == mxfp4.BOOK.zero, "-0 has no code of its own"
    half_NK = np.array([[63.0, 2.5, 7.5, -3.0]], np.float32)
    assert quantised("nf4", half_NK).q_NK.tolist() == [[15, 8, 8, 6]]


def test_a_group_takes_the_scale_that_loses_least() -> None:
    # 7 is between 6 and 8: doubling the step makes it 8 and loses the halves.
    few_NK = np.array([[7.5, 7.5, 7.5]], np.float32)
    assert quantised("mxfp4", few_NK).d_NG.tolist() == [[1.0]]
    many_NK = np.array([[7.5] + [0.5] * 20], np.float32)
    assert quantised("mxfp4", many_NK).d_NG.tolist() == [[0.5]]
    for name in ("nf4", "ulaw4"):
        w_NK = bell(5, "w", (50, 32))
        matrix = quantised(name, w_NK)
        found = loss(w_NK, get_format(name).dequantise(matrix))
        top_N = np.abs(w_NK).max(axis=1)
        sign_N = np.where(np.take_along_axis(
            w_NK, np.abs(w_NK).argmax(axis=1)[:, None], axis=1)[:, 0] > 0, -1, 1)  # fmt: skip
        values = np.array(BOOKS[name].values, np.float64)
        tried = []
        for factor in (1.0, 15 / 16, 7 / 8):
            d_N = (top_N / np.float32(63) * np.float32(factor)).astype(np.float16)
            d_N = d_N.astype(np.float64) * (sign_N if name == "ulaw4" else 1)
            distance = np.abs(w_NK[:, :, None] - d_N[:, None, None] * values)
            tried.append((distance.min(axis=2) ** 2).sum(axis=1))
        assert np.allclose(found, np.min(tried, axis=0), rtol=1e-12, atol=0)
        chosen = np.argmin(tried, axis=0)
        assert len(set(chosen.tolist())) == 3, "each of the three is the best somewhere"


def loss(w_NK: F32, near_NK: F32) -> np.ndarray:
    return ((w_NK.astype(np.float64) - near_NK.astype(np.float64)) ** 2).sum(axis=1)


def test_what_the_formats_lose_on_normal_weights() -> None:
    """Squares, relative to the weights': the order that docs/formats.md reports."""
    w_NK = bell(6, "w", (200, 320))
    lost = {
        name: float(loss(w_NK, get_format(name).dequantise(quantised(name, w_NK))).sum()
                    / (w_NK.astype(np.float64) ** 2).sum())
        for name in ("q8", "ulaw4", "nf4", "q4", "mxfp4")
    }  # fmt: skip
    assert list(lost) == sorted(lost, key=lost.__getitem__)
    assert lost["ulaw4"] < 0.9 * lost["q4"] and lost["mxfp4"] < 0.014


@pytest.mark.parametrize("name", BOOKS)
def test_native_packs_what_is_hard_like_the_oracle(name: str) -> None:
    rng = np.random.default_rng(3)
    w_NK = (rng.integers(-32, 33, size=(40, 100)) / 8).astype(np.float32)  # ties everywhere
    w_NK[7] *= np.ldexp(np.float32(1), rng.integers(-60, 0, size=100))
    w_NK[8] = 2.0**-40
    w_NK[9] = np.ldexp(w_NK[9], -24)  # f16 scales are subnormal, and some are 0
    w_NK[10] = 0
    w_NK[11, 3] = -(w_NK[11].max())
    expected = pack(quantised(name, w_NK, 40))
    assert natively(name, w_NK, 40).tobytes() == np.asarray(expected).tobytes()


def test_bytes_are_those_of_the_standard() -> None:
    """Two codes a byte and a byte of exponent for 32: 4.25 bits a weight."""
    assert get_format("mxfp4").bytes_per_weight == Fraction(17, 32)
    assert _native.matrix_bytes("mxfp4", 16, 64, 64) == 2 * 272
