"""Products, the grid and attention against loops over single numbers, written from the rules.

Suffixes: T rows, N outputs, K inputs, H heads, D elements of a head.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from bandweave.executors.reference import math as reference_math
from bandweave.executors.reference.attention import LayerCache, attention
from bandweave.executors.reference.products import (
    NumbersError,
    add_grid,
    linear_grid,
    to_grid,
    unit_sums,
)
from bandweave.formats.integers import integers
from bandweave.formats.matrix import Matrix, PlainMatrix, QuantisedMatrix
from bandweave.formats.registry import FORMAT_NAMES, get_format
from tests.helpers.random_model import F32, bell
from tests.helpers.reference_nodes import Book
from tests.test_reference_math import f32

ROWS, OUTPUTS = 3, 5


def fma(a: float, b: float, c: float) -> float:
    return f32(Fraction(a) * Fraction(b) + Fraction(c))


def slow_unit_sum(x_K: F32, matrix: Matrix, output: int, unit: range) -> float:
    acc = 0.0
    if isinstance(matrix, PlainMatrix):
        for k in unit:
            acc = fma(float(matrix.w_NK[output, k]), float(x_K[k]), acc)
        return acc
    assert isinstance(matrix, QuantisedMatrix)
    limit = 32512 if matrix.format == "q8" else 127
    q_K = integers(matrix)[output]
    for g, group in enumerate(matrix.groups.groups):
        if group.start not in unit:
            continue
        amax = max(abs(x_K[k]) for k in group)
        dot, scale = 0, np.float32(0)
        if amax >= 2.0**-40:
            scale = amax / np.float32(limit)
            factor = np.float32(limit) / amax
            for k in group:
                dot += int(q_K[k]) * int(np.rint(x_K[k] * factor))
        product = np.float32(matrix.d_NG[output, g]) * scale
        acc = fma(f32(Fraction(dot)), float(product), acc)
    return acc


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize(("inputs", "unit"), [(70, 70), (100, 24), (130, 64)])
def test_unit_sums(name: str, inputs: int, unit: int) -> None:
    x_TK = bell(1, "x", (ROWS, inputs))
    x_TK[1, :40] *= np.float32(1e-31)  # a group, or most of one, below 2^-40
    x_TK[2] *= np.float32(300)
    matrix = get_format(name).quantise(bell(2, "w", (OUTPUTS, inputs)), unit)
    sums = list(unit_sums(x_TK, matrix))
    assert len(sums) == len(matrix.groups.units)
    for y_TN, elements in zip(sums, matrix.groups.units, strict=True):
        expected = [
            [slow_unit_sum(x_K, matrix, n, elements) for n in range(OUTPUTS)] for x_K in x_TK
        ]
        assert y_TN.tolist() == expected
    total = linear_grid(x_TK, matrix)
    exact = sum(
        np.array([[round(Fraction(y) * 2**24) for y in row] for row in y_TN.tolist()])
        for y_TN in sums
    )
    assert np.array_equal(total, exact)


def test_the_grid_rounds_half_to_even_and_refuses_what_is_beyond() -> None:
    step = 2.0**-24
    values = np.array([[0.5, 1.5, 2.5, -0.5, -1.5]], dtype=np.float32) * np.float32(step)
    assert to_grid(values).tolist() == [[0, 2, 2, 0, -2]]
    limit = np.float32(2.0**27)  # 2^51 steps
    assert to_grid(np.array([[np.nextafter(limit, np.float32(0))]])).item() == 2**51 - 2**27
    for bad in (limit, -limit, np.float32(np.inf), np.float32(np.nan)):
        with pytest.raises(NumbersError, match="row 0, column 1"):
            to_grid(np.array([[0, bad]], dtype=np.float32))


def test_the_residual_takes_the_total_rounded_once() -> None:
    x_TN, bias_N = np.array([[1.0, 1.0]], dtype=np.float32), bell(1, "b", (2,))
    total = np.array([[2**40 + 2**16, -(2**40) - 2**16 - 1]])  # a half of a float32 step, and above
    y_N = [np.float32(2.0**16), np.float32(-(2.0**16) - 2.0**-7)]
    assert add_grid(x_TN, total, None).tolist() == [[float(1 + y) for y in y_N]]
    both = [float(np.float32(1) + (y + b)) for y, b in zip(y_N, bias_N, strict=True)]
    assert add_grid(x_TN, total, bias_N).tolist() == [both]
    for bad in (2**51, -(2**51)):
        with pytest.raises(NumbersError):
            add_grid(x_TN, np.array([[0, bad]]), None)


def own_exp(x: np.float32) -> np.float32:
    return reference_math.exp(np.array([x], dtype=np.float32))[0]


def slow_head(q_D: F32, k_JD: F32, v_JD: F32, position: int, window: int) -> list[float]:
    """One head of one row; the keys and values as stored, from position 0 on."""
    first = max(0, position - window + 1) if window else 0
    scale = np.float32(1 / math.sqrt(len(q_D)))
    state: tuple[np.float32, np.float32, list[float]] | None = None
    for chunk in range(0, position + 1, 64):
        visible = [j for j in range(chunk, chunk + 64) if first <= j <= position]
        if not visible:
            continue
        scores: dict[int, np.float32] = {}
        for j in visible:
            t = 0.0
            for q, k in zip(q_D.tolist(), k_JD[j].tolist(), strict=True):
                t = fma(q, k, t)
            scores[j] = np.float32(t) * scale
        m = max(scores.values())
        weights = np.zeros(64, dtype=np.float32)
        o = [0.0] * len(q_D)
        for j in visible:
            weights[j - chunk] = own_exp(scores[j] - m)
            o = [
                fma(float(weights[j - chunk]), v, total)
                for v, total in zip(v_JD[j].tolist(), o, strict=True)
            ]
        total = np.float32(reference_math.lane_sum(weights))
        if state is None:
            state = m, total, o
            continue
        top = max(state[0], m)
        a, b = own_exp(state[0] - top), own_exp(m - top)
        state = (
            top,
            np.float32(fma(float(state[1]), float(a), float(total * b))),
            [
                fma(old, float(a), float(np.float32(new) * b))
                for old, new in zip(state[2], o, strict=True)
            ],
        )
    assert state is not None
    return [float(np.float32(value) / state[1]) for value in state[2]]


@pytest.mark.parametrize("kv_dtype", ["f16", "f32"])
@pytest.mark.parametrize("window", [0, 70])
def test_attention(kv_dtype: str, window: int) -> None:
    length, dim, kv_map = 135, 6, (0, 0, 1)
    q_THD = bell(1, "q", (length, 3, dim)) * np.float32(2)
    k_TUD, v_TUD = bell(2, "k", (length, 2, dim)), bell(3, "v", (length, 2, dim))
    book = Book(num_sequences=1, pages_each=3)
    step = book.step([(0, [0] * length)])
    cache = LayerCache(num_pages=3, kv_heads=2, head_dim=dim, kv_dtype=kv_dtype)
    cache.append(step, k_TUD, v_TUD)
    y_THD = attention(
        step, q_THD, cache, kv_map=kv_map, window=window, scale=1 / np.sqrt(q_THD.shape[2])
    )
    if kv_dtype == "f16":
        k_TUD, v_TUD = (x.astype(np.float16).astype(np.float32) for x in (k_TUD, v_TUD))
    for position in (0, 1, 63, 64, 100, 134):
        for head, kv_head in enumerate(kv_map):
            expected = slow_head(
                q_THD[position, head], k_TUD[:, kv_head], v_TUD[:, kv_head], position, window
            )
            assert y_THD[position, head].tolist() == expected, (position, head)


def test_keys_and_values_that_cannot_be_stored_are_refused() -> None:
    step = Book(num_sequences=1, pages_each=1).step([(0, [1, 2])])
    good = np.ones((2, 1, 4), dtype=np.float32)
    bad = good.copy()
    bad[1, 0, 2] = 65520.0
    LayerCache(num_pages=1, kv_heads=1, head_dim=4, kv_dtype="f32").append(step, good, bad)
    cache = LayerCache(num_pages=1, kv_heads=1, head_dim=4, kv_dtype="f16")
    with pytest.raises(NumbersError, match="row 1, KV head 0: a value is 65520"):
        cache.append(step, good, bad)
    bad[1, 0, 2] = np.nan
    with pytest.raises(NumbersError, match="a key is nan"):
        cache.append(step, bad, good)
