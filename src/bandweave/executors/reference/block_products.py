"""Products with matrices that keep GGUF's blocks, in numpy: docs/numerics.md, section 16.

Knows matrices and quantised rows; knows no programs.

Suffixes: T rows, N outputs, G groups of 32 columns, S groups of columns that share an integer
scale, B blocks, E elements of a group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bandweave.executors.reference.math import F32, F64, fma
from bandweave.formats.block_matrix import BlockMatrix, block_integers
from bandweave.formats.groups import GROUP


def block_unit_sums(a_TGE: F64, scale_TG: F32, matrix: BlockMatrix) -> Iterator[F32]:
    """Each unit's float32 sums ``[T, N]``, in order, of activations as ``quantise_activations``
    gives them."""
    rows, outputs = len(a_TGE), len(matrix.q_NK)
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = _Blocks(a_TGE, scale_TG, matrix)
    block = 0
    for unit in matrix.groups.units:
        acc_TN = np.zeros((rows, outputs), np.float32)
        for _ in range(len(unit) // matrix.type.columns):
            with np.errstate(over="ignore", invalid="ignore"):
                acc_TN = blocks.add(block, acc_TN)
            block += 1
        yield acc_TN


class _Blocks:
    def __init__(self, a_TGE: F64, scale_TG: F32, matrix: BlockMatrix) -> None:
        self.kind, self.matrix = matrix.type, matrix
        self.sub = self.kind.sub
        self.scale_TG = scale_TG
        outputs, inputs = matrix.q_NK.shape
        self.a_TSE = a_TGE.reshape(len(a_TGE), inputs // self.sub, self.sub)
        self.q_NSE = block_integers(matrix).reshape(outputs, -1, self.sub).astype(np.float64)
        total_TS = self.a_TSE.sum(axis=2).astype(np.float32)
        each = GROUP // self.sub
        self.t_TS: F32 = total_TS * np.repeat(scale_TG, each, axis=1)

    def add(self, block: int, acc_TN: F32) -> F32:
        """The accumulators behind one more block."""
        groups = self.kind.columns // GROUP
        numbers = range(block * groups, (block + 1) * groups)
        d_N = self.matrix.d_NB[:, block].astype(np.float32)
        m_N = None if self.matrix.m_NB is None else self.matrix.m_NB[:, block].astype(np.float32)
        if groups == 1:
            factor_TN = d_N * self.scale_TG[:, block, None]
            acc_TN = fma(self._dot(block), factor_TN, acc_TN)
            return acc_TN if m_N is None else fma(m_N, self.t_TS[:, block, None], acc_TN)
        first_TN = np.zeros_like(acc_TN)
        second_TN = np.zeros_like(acc_TN)
        for group in numbers:
            first_TN = fma(self._dot(group), self.scale_TG[:, group, None], first_TN)
            if self.matrix.mins_NS is not None:
                for s in self._subs(group):
                    min_N = self.matrix.mins_NS[:, s].astype(np.float32)
                    second_TN = fma(min_N, self.t_TS[:, s, None], second_TN)
        acc_TN = fma(d_N, first_TN, acc_TN)
        return acc_TN if m_N is None else fma(-m_N, second_TN, acc_TN)

    def _subs(self, group: int) -> range:
        each = GROUP // self.sub
        return range(group * each, (group + 1) * each)

    def _dot(self, group: int) -> F32:
        """The integer of a group: exact in float64 in any order, and below 2^24 in the end."""
        total_TN = np.zeros((len(self.a_TSE), len(self.q_NSE)))
        for s in self._subs(group):
            dot_TN = self.a_TSE[:, s] @ self.q_NSE[:, s].T
            if self.matrix.s_NS is not None:
                dot_TN = dot_TN * self.matrix.s_NS[:, s].astype(np.float64)
            total_TN += dot_TN
        assert np.abs(total_TN).max(initial=0) < 2**24
        return total_TN.astype(np.float32)
