"""The arithmetic of docs/numerics.md, section 5, in numpy: fma, lane sums, exp, sine and cosine.

Knows numbers only; knows no programs. Everything is float32 unless its name says otherwise; NaN
and infinities pass through as IEEE 754 says, without warnings.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial

import numpy as np
import numpy.typing as npt

from bandweave.formats.stored import stored

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LANES = 64


def fma(a: F32, b: F32 | np.float32, c: F32) -> F32:
    """``a * b + c`` of float32 arrays (broadcast), rounded once."""
    return add_product(np.multiply(a, b, dtype=np.float64), c)


def add_product(product: F64, c: F32) -> F32:
    """``product + c`` rounded once to float32, for an exact product of two float32.

    The float64 sum is rounded to odd: towards zero, with its last bit set where it is inexact. 53
    bits are at least 24 and two more, so that rounding the odd sum to float32 equals rounding the
    exact one (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        c64 = c.astype(np.float64)
        total = np.asarray(product + c64)
        part = total - product  # TwoSum (Knuth): error = product + c64 - total, exactly
        error = (product - (total - part)) + (c64 - part)
        inexact = np.abs(error) > 0  # False for the NaN of an infinite sum
        too_large = inexact & ((error < 0) != (total < 0))  # in magnitude
        odd = (total.view(np.int64) - too_large) | inexact
        return odd.view(np.float64).astype(np.float32)


def lane_sum(values: F32) -> F32:
    """The sum over the last axis, in 64 lanes and one fixed tree."""
    with np.errstate(over="ignore", invalid="ignore"):
        lanes = np.zeros((*values.shape[:-1], LANES), dtype=np.float32)
        for row in _lane_rows(values):
            lanes = lanes + row
        return _tree(lanes)


def lane_sum_squares(values: F32) -> F32:
    """The sum of squares over the last axis, by fma in 64 lanes and one fixed tree."""
    lanes = np.zeros((*values.shape[:-1], LANES), dtype=np.float32)
    for row in _lane_rows(values):
        lanes = fma(row, row, lanes)
    return _tree(lanes)


def _lane_rows(values: F32) -> list[F32]:
    """64 consecutive elements after the other; +0 completes the last."""
    missing = -values.shape[-1] % LANES
    if missing:
        zeros = np.zeros((*values.shape[:-1], missing), dtype=np.float32)
        values = np.concatenate([values, zeros], axis=-1)
    return [values[..., i : i + LANES] for i in range(0, values.shape[-1], LANES)]


def _tree(lanes: F32) -> F32:
    with np.errstate(over="ignore", invalid="ignore"):
        for half in (32, 16, 8, 4, 2, 1):
            lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes[..., 0]


SMALLEST_WEIGHT = np.float32(2.0**-37)  # of a softmax; less is zero

_LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
_MINUS_LN2_HIGH = np.float32(float.fromhex("-0x1.62e4p-1"))
_MINUS_LN2_LOW = np.float32(float.fromhex("-0x1.7f7d1cp-20"))
_EXP_TERMS = tuple(np.float32(float(Fraction(1, factorial(k)))) for k in range(8))


def exp(x: F32) -> F32:
    """``e ** x``: x = n ln 2 + r, a polynomial in r, and two scalings so that 2^n cannot overflow
    before the product does."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        x = np.where(x < np.float32(-104), np.float32(-104), x)
        x = np.where(x > np.float32(89), np.float32(89), x)
        n = np.rint(x * _LOG2_E)
        r = fma(n, _MINUS_LN2_HIGH, x)
        r = fma(n, _MINUS_LN2_LOW, r)
        p = np.full_like(x, _EXP_TERMS[7])
        for k in range(6, -1, -1):
            p = fma(p, r, np.full_like(x, _EXP_TERMS[k]))
        whole = np.where(np.isnan(n), np.float32(0), n).astype(np.int32)
        half = whole >> 1
        one = np.float32(1)
        return (p * np.ldexp(one, half)) * np.ldexp(one, whole - half)


_TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
_PI_OVER_2 = tuple(
    float.fromhex(part) for part in ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")
)
_SINE_TERMS = tuple(float(Fraction((-1) ** j, factorial(2 * j + 1))) for j in range(1, 9))
_COSINE_TERMS = tuple(float(Fraction((-1) ** j, factorial(2 * j))) for j in range(1, 9))


def sincos_f64(angle: F64) -> tuple[F64, F64]:
    """Sine and cosine of float64 angles (radians, from 0 to about 1.6 million), in float64."""
    n = np.rint(angle * _TWO_OVER_PI)
    r = ((angle - n * _PI_OVER_2[0]) - n * _PI_OVER_2[1]) - n * _PI_OVER_2[2]
    z = r * r
    sine = r + r * (z * _polynomial(_SINE_TERMS, z))
    cosine = 1.0 + z * _polynomial(_COSINE_TERMS, z)
    quadrant = n.astype(np.int64) & 3
    return (
        np.choose(quadrant, [sine, cosine, -sine, -cosine]),
        np.choose(quadrant, [cosine, -sine, -cosine, sine]),
    )


def sincos(angle: F64, factor: float = 1.0) -> tuple[F32, F32]:
    """Sine and cosine of float64 angles times a float64, rounded to float32 and stored."""
    sine, cosine = (one * factor for one in sincos_f64(angle))
    return stored(sine.astype(np.float32)), stored(cosine.astype(np.float32))


def _polynomial(terms: tuple[float, ...], z: F64) -> F64:
    total = np.full_like(z, terms[-1])
    for term in reversed(terms[:-1]):
        total = term + z * total
    return total


_GELU_TERMS = (
    np.float32(float.fromhex("0x1.988454p+0")),
    np.float32(float.fromhex("0x1.2444f2p-4")),
)


def gated_mul(gate: F32, up: F32, function: str, *, limit: float = 0, alpha: float = 0) -> F32:
    """``f(gate) * up`` by the name of the function in ``GATES``; ``limit`` and ``alpha`` are those
    of ``"clamped_silu"``."""
    one = np.float32(1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if function == "clamped_silu":
            most = np.float32(limit)
            gate = np.where(gate > most, most, gate)
            up = np.where(up > most, most, np.where(up < -most, -most, up)) + one
            inner = np.multiply(np.float32(alpha), gate)
        elif function == "gelu_tanh":
            inner = gate * fma(gate * gate, _GELU_TERMS[1], np.full_like(gate, _GELU_TERMS[0]))
        elif function == "sigmoid":
            return sigmoid(gate) * up
        else:
            inner = gate
        passed: F32 = np.divide(gate, np.add(one, exp(-inner)))
        return passed * up


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """Root-mean-square norm over the last axis."""
    return norm_by_sum(x, lane_sum_squares(x), x.shape[-1], weight, eps)


def norm_by_sum(x: F32, sum_squares: F32, count: int, weight: F32, eps: float) -> F32:
    """``x`` over the root of the mean of ``count`` squares, whose sum is given, times ``weight``;
    ``sum_squares`` has an axis less."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        own_eps = np.float32(eps)
        if own_eps < np.finfo(np.float32).tiny:  # a subnormal
            own_eps = np.float32(0)
        mean = sum_squares / np.float32(count) + own_eps
        r: F32 = np.divide(np.float32(1), np.sqrt(mean))
        return (x * r[..., None]) * weight


def layer_norm(x: F32, weight: F32, eps: float) -> F32:
    """Norm over the last axis, without the mean (Ba et al. 2016, arXiv:1607.06450)."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        mean: F32 = lane_sum(x) / np.float32(x.shape[-1])
        return rms_norm(stored(x - mean[..., None]), weight, eps)


def soft_cap(x: F32, cap: float) -> F32:
    """``cap * tanh(x / cap)``."""
    one, two, most = np.float32(1), np.float32(2), np.float32(cap)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z: F32 = x / most
        e = exp(z + z)
        return most * (one - np.divide(two, one + e))


def rope(
    heads: F32,
    positions: npt.NDArray[np.int32],
    inv_freq: F64,
    *,
    factor: float = 1.0,
    interleaved: bool = False,
) -> F32:
    """Rotates ``[rows, heads, 2 * len(inv_freq)]`` by the rows' positions."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        half = len(inv_freq)
        s, c = sincos(positions.astype(np.float64)[:, None] * inv_freq, factor)
        s, c = s[:, None, :], c[:, None, :]
        first = slice(0, None, 2) if interleaved else slice(0, half)
        second = slice(1, None, 2) if interleaved else slice(half, None)
        x1, x2 = heads[..., first], heads[..., second]
        turned = np.empty_like(heads)
        turned[..., first] = fma(x1, c, -(x2 * s))
        turned[..., second] = fma(x2, c, x1 * s)
        return turned


def softmax(x: F32) -> F32:
    """Over the last axis, as routers take it: ``exp(x - max)`` by their sum in 64 lanes."""
    largest: F32 = x.max(axis=-1, keepdims=True)
    e = exp(x - largest)
    e = np.where(np.abs(e) < SMALLEST_WEIGHT, np.float32(0), e)
    y: F32 = np.divide(e, lane_sum(e)[..., None])
    return stored(y)


def sigmoid(x: F32) -> F32:
    """The logistic function, ``1 / (1 + exp(-x))``."""
    with np.errstate(over="ignore"):
        y: F32 = np.divide(np.float32(1), np.float32(1) + exp(-x))
        return stored(y)
