"""The reference's own arithmetic against exact rational arithmetic and the math module."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bandweave.executors.reference import math as own
from bandweave.formats.stored import stored
from tests.helpers.random_model import F32, bell

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def f32(value: Fraction) -> float:
    """A rational number rounded to float32, to nearest even; infinite beyond its range."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length() - 1, -126)
    while size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    step = Fraction(2) ** (exponent - 23)
    rounded = round(value / step) * step  # round() on a Fraction is half to even
    if abs(rounded) >= Fraction(2) ** 128:
        return math.copysign(math.inf, value)
    return float(rounded)


def one_fma(a: float, b: float, c: float) -> float:
    arrays = [np.array([value], dtype=np.float32) for value in (a, b, c)]
    return float(own.fma(*arrays)[0])


@settings(max_examples=1000)
@given(FLOATS, FLOATS, FLOATS)
@example(float.fromhex("0x1.000002p0"), 1.0, 2.0**-24)  # halves: to even, up and down
@example(1.0, 1.0, 2.0**-24)
@example(float.fromhex("0x1.fffffep0"), float.fromhex("0x1.fffffep0"), 2.0**-90)
@example(2.0**-75, 2.0**-75, 2.0**-149)  # just above half of the smallest subnormal step
@example(2.0**-75, 2.0**-75, 0.0)
@example(2.0**64, 2.0**64, -(2.0**104))
@example(2.0**64, 2.0**64, -(2.0**103))
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert one_fma(a, b, c) == f32(exact)


@settings(max_examples=1000)
@given(st.integers(0, 2**32), st.integers(-60, 60))
def test_fma_rounds_once_where_magnitudes_are_near(seed: int, shift: int) -> None:
    a, b, c = (float(value) for value in bell(seed, "abc", (3,)))
    c = math.ldexp(c, shift)
    assert one_fma(a, b, c) == f32(Fraction(a) * Fraction(b) + Fraction(c))


def test_fma_of_a_midpoint_and_a_sliver_fails_if_rounded_twice() -> None:
    a = 1 + 2.0**-12  # its square, 1 + 2^-11 + 2^-24, lies in the middle of two float32
    below, above = 1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-23
    assert one_fma(a, a, 0.0) == below  # to even
    assert one_fma(a, a, 2.0**-60) == above
    assert one_fma(a, a, -(2.0**-60)) == below
    assert float(np.float32(a * a + 2.0**-60)) == below  # float64 alone loses the sliver


def test_fma_of_infinities_and_nan() -> None:
    inf, nan = math.inf, math.nan
    assert one_fma(inf, 1.0, 1.0) == inf
    assert one_fma(1.0, 1.0, -inf) == -inf
    assert math.isnan(one_fma(inf, 1.0, -inf))
    assert math.isnan(one_fma(nan, 1.0, 0.0))
    assert math.copysign(1, one_fma(-1.0, 0.0, 0.0)) == 1  # -0 + +0
    assert math.copysign(1, one_fma(-1.0, 0.0, -0.0)) == -1


def slow_tree(lanes: list[np.float32]) -> np.float32:
    for half in (32, 16, 8, 4, 2, 1):
        for lane in range(half):
            lanes[lane] = lanes[lane] + lanes[lane + half]
    return lanes[0]


@pytest.mark.parametrize("size", [1, 15, 63, 64, 65, 128, 200, 333])
def test_lane_sums_add_in_the_stated_order(size: int) -> None:
    values = bell(size, "v", (size,)) * np.float32(1e3)
    lanes = [np.float32(0)] * 64
    squares = [np.float32(0)] * 64
    for i, value in enumerate(values):
        lanes[i % 64] = lanes[i % 64] + value
        squares[i % 64] = np.float32(one_fma(float(value), float(value), float(squares[i % 64])))
    total = slow_tree(lanes)
    assert own.lane_sum(values) == total
    assert own.lane_sum_squares(values) == slow_tree(squares)
    assert own.lane_sum(np.stack([values, values])).tolist() == [total, total]


def ulps(got: F32, exact: np.ndarray) -> float:
    """The largest error in steps of the exact value's float32 binade."""
    steps = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return float((np.abs(got.astype(np.float64) - exact) / steps).max())


def test_exp_is_within_two_ulps() -> None:
    x = np.linspace(-103.9, 88.7, 400_001).astype(np.float32)
    exact = np.array([math.exp(value) for value in x.tolist()])
    assert ulps(own.exp(x), exact) <= 2
    fine = np.linspace(-1, 1, 200_001).astype(np.float32)
    assert ulps(own.exp(fine), np.array([math.exp(value) for value in fine.tolist()])) <= 2


def test_exp_at_the_ends() -> None:
    x = np.array([0.0, -0.0, 89, 1e9, math.inf, -104, -1e9, -math.inf, math.nan], dtype=np.float32)
    y = own.exp(x)
    assert y[:2].tolist() == [1, 1]
    assert np.isinf(y[2:5]).all() and (y[5:8] == 0).all() and np.isnan(y[8])


def test_sine_and_cosine_are_right_in_float64() -> None:
    generator = np.random.default_rng(5)
    angle = np.concatenate([np.arange(0, 3000) / 100, generator.uniform(0, 1e6, 20_000)])
    # Multiples of pi / 2, where the reduction cancels most.
    angle = np.concatenate([angle, np.rint(generator.uniform(0, 6e5, 2000)) * (math.pi / 2)])
    sine, cosine = own.sincos_f64(angle)
    for got, function in ((sine, math.sin), (cosine, math.cos)):
        exact = np.array([function(value) for value in angle.tolist()])
        error = np.abs(got - exact) / np.spacing(np.abs(exact))
        assert error.max() <= 2
        assert np.abs(got - exact).max() <= 2.0**-52
    sine32, cosine32 = own.sincos(angle)
    assert np.array_equal(sine32, stored(sine.astype(np.float32)))
    assert np.array_equal(cosine32, stored(cosine.astype(np.float32)))


def test_what_is_stored_is_no_smaller_than_2_to_the_minus_40() -> None:
    smallest = 2.0**-40
    below = float(np.nextafter(np.float32(smallest), np.float32(0)))
    kept = [smallest, -smallest, 1.0, -(2.0**127), math.inf, -math.inf]
    gone = [below, -below, 2.0**-126, -(2.0**-149), 0.0, -0.0]
    got = stored(np.array([*kept, *gone, math.nan], dtype=np.float32))
    assert got[:6].tolist() == kept and np.isnan(got[-1])
    assert (got[6:-1].view(np.uint32) == 0).all()  # +0, not -0
    angles = np.array([2.0**-41, 2.0**-40, math.pi / 2], dtype=np.float64)
    sine, cosine = own.sincos(angles)
    assert sine.tolist() == [0, smallest, 1] and cosine.tolist() == [1, 1, 0]


def test_silu() -> None:
    gate = np.array([0, 1, -1, 200, -200, -1e30], dtype=np.float32)
    y = own.gated_mul(gate, np.full_like(gate, 2), "silu")
    expected = [0.0] + [2 * g / (1 + math.exp(-g)) for g in (1, -1, 200, -200)] + [0]
    assert np.allclose(y, expected, rtol=1e-6, atol=1e-30)


def test_rms_norm() -> None:
    x, weight = bell(1, "x", (3, 40)), bell(2, "w", (40,))
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5) * weight
    assert np.allclose(own.rms_norm(x, weight, 1e-5), exact, rtol=1e-5, atol=1e-6)


def test_rope_rotates_pairs_half_a_head_apart() -> None:
    heads = bell(1, "q", (2, 3, 12))
    positions = np.array([0, 70], dtype=np.int32)
    inv_freq = np.array([1.0, 0.1, 0.01, 0.001])
    heads = heads[..., :8]
    y = own.rope(heads, positions, inv_freq)
    assert np.array_equal(y[0], heads[0])
    pairs = heads[1, :, :4].astype(np.float64) + 1j * heads[1, :, 4:8]
    turned = pairs * np.exp(1j * 70 * inv_freq)
    assert np.allclose(y[1, :, :4], turned.real, atol=1e-6)
    assert np.allclose(y[1, :, 4:8], turned.imag, atol=1e-6)


def test_rope_rotates_neighbours_and_multiplies_by_a_factor() -> None:
    heads, positions = bell(1, "q", (2, 3, 8)), np.array([0, 70], dtype=np.int32)
    inv_freq = np.array([1.0, 0.1, 0.01, 0.001])
    y = own.rope(heads, positions, inv_freq, factor=1.5, interleaved=True)
    assert np.array_equal(y[0], heads[0] * np.float32(1.5))
    turned = (heads[1, :, ::2] + 1j * heads[1, :, 1::2]) * np.exp(1j * 70 * inv_freq) * 1.5
    assert np.allclose(y[1, :, ::2], turned.real, atol=1e-6)
    assert np.allclose(y[1, :, 1::2], turned.imag, atol=1e-6)


def test_gelu_by_tanh_and_a_clamped_silu() -> None:
    gate = np.array([0, 1, -1, 9, -3, 200, -200, 1e30, -1e30], dtype=np.float32)
    up = np.array([1, 2, -3, 9, -9, 0.5, 4, 1, 1], dtype=np.float32)
    wide = gate.astype(np.float64)
    slope = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    gelu = 0.5 * wide * (1 + np.tanh(slope)) * up
    assert np.allclose(own.gated_mul(gate, up, "gelu_tanh"), gelu, rtol=1e-6, atol=1e-7)
    bounded = np.minimum(wide, 7)
    with np.errstate(over="ignore"):
        silu = bounded / (1 + np.exp(-1.702 * bounded))
    expected = silu * (np.clip(up, -7, 7) + 1)
    got = own.gated_mul(gate, up, "clamped_silu", limit=7.0, alpha=1.702)
    assert np.allclose(got, expected, rtol=1e-6, atol=1e-7)
