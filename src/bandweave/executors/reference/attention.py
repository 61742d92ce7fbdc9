"""KV pages and attention of docs/numerics.md, section 6, in numpy.

Knows one layer's cache and the step's rows; knows no programs.

Suffixes: T rows, H query heads, U KV heads, D elements of a head, C = 64 positions of a chunk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import PAGE_SIZE, Step
from bandweave.executors.reference.math import (
    F32,
    SMALLEST_WEIGHT,
    exp,
    fma,
    lane_sum,
    soft_cap,
)
from bandweave.executors.reference.products import NumbersError
from bandweave.formats.stored import stored


class LayerCache:
    """Keys and values of one layer: ``[pages, 64, kv_heads, head_dim]`` float16 or float32. Where
    ``latent`` is given, values are that many first elements of the keys."""

    def __init__(
        self, *, num_pages: int, kv_heads: int, head_dim: int, kv_dtype: str, latent: int = 0
    ) -> None:
        dtype = {"f16": np.float16, "f32": np.float32}[kv_dtype]
        shape = (num_pages, PAGE_SIZE, kv_heads, head_dim)
        self.keys = np.zeros(shape, dtype=dtype)
        self.values = self.keys[..., :latent] if latent else np.zeros(shape, dtype=dtype)

    def append(self, step: Step, k_TUD: F32, v_TUD: F32 | None = None) -> None:
        """Stores the rows' keys and values, which a latent cache has no others of;
        ``NumbersError`` where one is not finite as stored."""
        pages_T = step.page_tables[step.slots, step.positions // PAGE_SIZE]
        places_T = step.positions % PAGE_SIZE
        for cache, name, rows_TUD in ((self.keys, "key", k_TUD), (self.values, "value", v_TUD)):
            if rows_TUD is None:
                continue
            with np.errstate(over="ignore", under="ignore"):
                stored_TUD = rows_TUD.astype(cache.dtype)
            if not np.isfinite(stored_TUD).all():
                row, head, element = (int(i) for i in np.argwhere(~np.isfinite(stored_TUD))[0])
                raise NumbersError(
                    f"row {row}, KV head {head}: a {name} is {rows_TUD[row, head, element]}, "
                    f"which {cache.dtype} cannot hold"
                )
            cache[pages_T, places_T] = stored_TUD


def attention(
    step: Step,
    q_THD: F32,
    cache: LayerCache,
    *,
    kv_map: tuple[int, ...],
    window: int,
    scale: float,
    cap: float = 0.0,
    sinks_H: F32 | None = None,
) -> F32:
    """``[T, H, D]``; ``kv_map[h]`` is query head h's KV head, ``window`` 0 means none, and so does
    a ``cap`` of 0; ``sinks_H``: a score a head that no key has."""
    out_THD = np.empty((*q_THD.shape[:2], cache.values.shape[3]), dtype=np.float32)
    for slot in np.unique(step.slots):
        rows = np.flatnonzero(step.slots == slot)
        out_THD[rows] = _attend_sequence(
            q_THD[rows],
            step.positions[rows],
            step.page_tables[slot],
            cache,
            kv_map,
            window,
            scale,
            cap,
            sinks_H,
        )
    return out_THD


def _attend_sequence(
    q_THD: F32,
    positions_T: npt.NDArray[np.int32],
    pages: npt.NDArray[np.int32],
    cache: LayerCache,
    kv_map: tuple[int, ...],
    window: int,
    scale: float,
    cap: float,
    sinks_H: F32 | None,
) -> F32:
    """Rows of one sequence: visits the chunks in ascending order, each with the rows that see
    some of it."""
    rows, heads, _ = q_THD.shape
    M_TH = np.zeros((rows, heads), dtype=np.float32)
    L_TH = np.zeros((rows, heads), dtype=np.float32)
    O_THD = np.zeros((rows, heads, cache.values.shape[3]), dtype=np.float32)
    started_T = np.zeros(rows, dtype=np.bool_)
    for chunk in range(int(positions_T.max()) // PAGE_SIZE + 1):
        j_C = np.arange(chunk * PAGE_SIZE, (chunk + 1) * PAGE_SIZE)
        visible_TC = j_C <= positions_T[:, None]
        if window:
            visible_TC &= j_C > positions_T[:, None] - window
        active = visible_TC.any(axis=1)
        if not active.any():
            continue
        k_CHD = cache.keys[pages[chunk]][:, kv_map].astype(np.float32)
        v_CHD = cache.values[pages[chunk]][:, kv_map].astype(np.float32)
        m_TH, l_TH, o_THD = _chunk(q_THD[active], k_CHD, v_CHD, visible_TC[active], scale, cap)
        old = M_TH[active], L_TH[active], O_THD[active]
        new = _merge(*old, m_TH, l_TH, o_THD)
        first = ~started_T[active]
        M_TH[active] = np.where(first[:, None], m_TH, new[0])
        L_TH[active] = np.where(first[:, None], l_TH, new[1])
        O_THD[active] = np.where(first[:, None, None], o_THD, new[2])
        started_T |= active
    if sinks_H is not None:
        # The last to join: a weight that goes to no value.
        m_TH = np.broadcast_to(sinks_H, (rows, heads)).astype(np.float32)
        nothing_THD = np.zeros_like(O_THD)
        M_TH, L_TH, O_THD = _merge(M_TH, L_TH, O_THD, m_TH, np.ones_like(L_TH), nothing_THD)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        return O_THD / L_TH[:, :, None]


def _chunk(
    q_THD: F32, k_CHD: F32, v_CHD: F32, visible_TC: npt.NDArray[np.bool_], scale: float, cap: float
) -> tuple[F32, F32, F32]:
    """A chunk's largest score ``m_TH``, sum of weights ``l_TH`` and weighted values ``o_THD``."""
    rows, heads, dim = q_THD.shape
    visible_THC = np.broadcast_to(visible_TC[:, None, :], (rows, heads, PAGE_SIZE))
    t_THC = np.zeros((rows, heads, PAGE_SIZE), dtype=np.float32)
    for d in range(dim):
        t_THC = fma(q_THD[:, :, d, None], np.ascontiguousarray(k_CHD[:, :, d].T), t_THC)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        s_THC = t_THC * np.float32(scale)
        if cap:
            s_THC = soft_cap(s_THC, cap)
        m_TH = np.where(visible_THC, s_THC, np.float32(-np.inf)).max(axis=2)
        e_THC = _counted(exp(s_THC - m_TH[:, :, None]))
    e_THC = np.where(visible_THC, e_THC, np.float32(0))
    o_THD = np.zeros((rows, heads, v_CHD.shape[2]), dtype=np.float32)
    for j in range(PAGE_SIZE):
        seen = np.flatnonzero(visible_TC[:, j])
        if len(seen):
            o_THD[seen] = fma(e_THC[seen, :, j, None], v_CHD[j], o_THD[seen])
    return m_TH, lane_sum(e_THC), o_THD


def _merge(
    M_TH: F32, L_TH: F32, O_THD: F32, m_TH: F32, l_TH: F32, o_THD: F32
) -> tuple[F32, F32, F32]:
    """The running state and a chunk's, joined."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        top_TH = np.maximum(M_TH, m_TH)
        a_TH, b_TH = _counted(exp(M_TH - top_TH)), _counted(exp(m_TH - top_TH))
        a_TH1, b_TH1 = a_TH[:, :, None], b_TH[:, :, None]
        return (
            top_TH,
            fma(L_TH, a_TH, l_TH * b_TH),
            stored(fma(O_THD, a_TH1, o_THD * b_TH1)),
        )


def _counted(weights: F32) -> F32:
    """Weights too small to count as +0; a NaN stays."""
    return np.where(weights < SMALLEST_WEIGHT, np.float32(0), weights)
