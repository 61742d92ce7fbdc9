"""Gated delta nets of docs/numerics.md, section 14, in numpy, row after row.

Knows numbers and states; knows no programs.

Suffixes: T rows, N channels, H value heads, K and V elements of a key and of a value.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from bandweave.executors.reference.math import (
    F32,
    SMALLEST_WEIGHT,
    exp,
    fma,
    lane_sum_squares,
    sigmoid,
)
from bandweave.executors.reference.states import LayerState, Turn
from bandweave.formats.stored import stored

#: ``2 / (2 k + 1)``, of the series of the logarithm.
_LOG_TERMS = tuple(np.float32(float(Fraction(2, 2 * k + 1))) for k in range(9))


def short_conv(x_TN: F32, weights_N: F32, kernel: int, state: LayerState, turns: list[Turn]) -> F32:
    """SiLU of the causal convolution over ``kernel`` rows; the weights of a channel follow each
    other."""
    weights_NI = weights_N.reshape(-1, kernel)
    y_TN = np.empty_like(x_TN)
    for turn in turns:
        all_RN = np.concatenate([state.before(turn), x_TN[turn.rows]])
        total_RN = np.zeros((len(turn.rows), x_TN.shape[1]), np.float32)
        for i in range(kernel):
            total_RN = fma(all_RN[i : i + len(turn.rows)], weights_NI[:, i], total_RN)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            y_TN[turn.rows] = total_RN / (np.float32(1) + exp(-total_RN))
        state.keep_rows(turn, all_RN)
    return y_TN


def l2_norm(x: F32, eps: float, factor: float) -> F32:
    """``x`` over the root of its sum of squares and ``eps``, over the last axis, times
    ``factor``."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        sum_squares = lane_sum_squares(x) + np.float32(eps)
        r: F32 = np.divide(np.float32(1), np.sqrt(sum_squares))
        return (x * r[..., None]) * np.float32(factor)


def softplus(x: F32) -> F32:
    """``log(1 + exp(x))``: what exceeds ``max(x, 0)`` is ``log(1 + u)``, twice the area hyperbolic
    tangent of ``u / (2 + u)``, by its series."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        u = exp(-np.abs(x))
        u = np.where(u < SMALLEST_WEIGHT, np.float32(0), u)
        s: F32 = np.divide(u, np.float32(2) + u)
        z = s * s
        p = np.full_like(s, _LOG_TERMS[8])
        for k in range(7, -1, -1):
            p = fma(p, z, np.full_like(s, _LOG_TERMS[k]))
        return np.where(x < 0, np.float32(0), x) + s * p


def delta_gates(x_TN: F32, vector_N: F32, heads: int) -> F32:
    """What heads write, then what they keep; ``vector_N``: the rates, then the steps."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        rate = stored(exp(vector_N[:heads]))
        time = rate * softplus(x_TN[:, heads:] + vector_N[heads:])
        keep = exp(-time)
    keep = np.where(keep < SMALLEST_WEIGHT, np.float32(0), keep)
    return np.concatenate([sigmoid(x_TN[:, :heads]), keep], axis=1)


class Heads(NamedTuple):
    """Of what widths a row's queries, keys and values are."""

    heads: int
    key_heads: int
    k_dim: int
    v_dim: int


def delta_rule(x_TN: F32, gates_TN: F32, sizes: Heads, state: LayerState, turns: list[Turn]) -> F32:
    """What each head's state gives for the queries, ``[T, H, V]``."""
    heads, key_heads, k_dim, v_dim = sizes
    keys = key_heads * k_dim
    sharing = heads // key_heads
    q_THK, k_THK = (
        x_TN[:, at : at + keys].reshape(-1, key_heads, k_dim).repeat(sharing, axis=1)
        for at in (0, keys)
    )
    v_THV = x_TN[:, 2 * keys :].reshape(-1, heads, v_dim)
    out_THV = np.empty_like(v_THV)
    gates_TH2 = gates_TN.reshape(-1, 2, heads).transpose(0, 2, 1)
    writing_THN = np.concatenate([k_THK, v_THV, gates_TH2], axis=2)  # what a state changes by
    for turn in turns:
        S_HKV = np.zeros_like(state.matrices_SHKV[0])
        if not turn.fresh:
            S_HKV = state.matrices_SHKV[turn.read]
        for row in state.rows_SRN[turn.read, : turn.replayed]:
            S_HKV = _written(S_HKV, row.reshape(heads, -1), k_dim)
        for place, row in enumerate(turn.rows.tolist()):
            S_HKV = _written(S_HKV, writing_THN[row], k_dim)
            out_THV[row] = _read(S_HKV, q_THK[row])
            if place + 1 == turn.certain:
                state.matrices_SHKV[turn.write] = S_HKV
            if place + 1 == turn.kept and turn.keep >= 0:
                state.matrices_SHKV[turn.keep] = S_HKV
        state.keep_rows(turn, writing_THN[turn.rows].reshape(len(turn.rows), -1))
    return out_THV


def _written(S_HKV: F32, row_HN: F32, k_dim: int) -> F32:
    """The state once a row's key and value are written to it."""
    k_HK, v_HV = row_HN[:, :k_dim], row_HN[:, k_dim:-2]
    write_H1, keep_H1 = row_HN[:, -2:-1], row_HN[:, -1:]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        left_HKV = stored(S_HKV * keep_H1[:, :, None])
        d_HV = stored((v_HV - _read(left_HKV, k_HK)) * write_H1)
    return stored(fma(k_HK[:, :, None], d_HV[:, None, :], left_HKV))


def _read(S_HKV: F32, q_HK: F32) -> F32:
    """The sum of the state's rows, each times its element of a query."""
    total_HV = np.zeros((S_HKV.shape[0], S_HKV.shape[2]), np.float32)
    for i in range(S_HKV.shape[1]):
        total_HV = fma(q_HK[:, i, None], S_HKV[:, i], total_HV)
    return total_HV
