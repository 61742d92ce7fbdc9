"""A weight matrix as GGUF stores it: codes, scales and minima of blocks, taken apart.

Knows no arithmetic but what a code means. Suffixes: N outputs, K inputs, B blocks, S groups of
columns that share an integer scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.formats.block_types import BLOCK_TYPES, BlockType, check_unit
from bandweave.formats.groups import Groups

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BlockMatrix:
    """``q_NK`` are the codes as stored. ``d_NB`` and, where the type has minima, ``m_NB`` are the
    blocks' float16 numbers; ``s_NS`` and ``mins_NS`` a super-block's integers. A weight is

    - ``d q`` or ``d q + m`` in blocks of 32,
    - ``(d s) q`` or ``(d s) q - m min`` in super-blocks,

    with ``q`` what ``integers`` gives. ``ValueError`` where ``unit`` would cut a block.
    """

    format: str
    q_NK: npt.NDArray[np.uint8]
    d_NB: npt.NDArray[np.float16]
    m_NB: npt.NDArray[np.float16] | None = None
    s_NS: npt.NDArray[np.int8] | None = None
    mins_NS: npt.NDArray[np.uint8] | None = None
    unit: int

    def __post_init__(self) -> None:
        check_unit(self.format, self.q_NK.shape[1], self.unit)

    @property
    def type(self) -> BlockType:
        return BLOCK_TYPES[self.format]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(outputs, inputs)``."""
        return self.q_NK.shape

    @property
    def groups(self) -> Groups:
        return Groups(inputs=self.q_NK.shape[1], unit=self.unit)


def block_integers(matrix: BlockMatrix) -> npt.NDArray[np.int8]:
    """What the codes stand for before the scales, ``[outputs, inputs]``."""
    if matrix.type.book is not None:
        return matrix.type.book.integers(matrix.q_NK.view(np.int8))
    return matrix.q_NK.astype(np.int8) - np.int8(matrix.type.zero)


def dequantise(matrix: BlockMatrix) -> F32:
    """The weights' values, ``[outputs, inputs]``: both products are exact as float32, and their
    difference or sum is rounded once. A scale that is no number gives no number."""
    kind, inputs = matrix.type, matrix.q_NK.shape[1]
    block_K = np.arange(inputs) // kind.columns
    q_NK = block_integers(matrix).astype(np.float32)
    with np.errstate(invalid="ignore"):
        scale_NK = matrix.d_NB.astype(np.float32)[:, block_K]
        if matrix.s_NS is not None:
            scale_NK = scale_NK * matrix.s_NS.astype(np.float32)[:, np.arange(inputs) // kind.sub]
        w_NK: F32 = scale_NK * q_NK
        if matrix.m_NB is None:
            return w_NK
        m_NK = matrix.m_NB.astype(np.float32)[:, block_K]
        if matrix.mins_NS is None:
            return np.add(w_NK, m_NK, dtype=np.float32)
        minima_NK = matrix.mins_NS.astype(np.float32)[:, np.arange(inputs) // kind.sub]
        return np.subtract(w_NK, m_NK * minima_NK, dtype=np.float32)
