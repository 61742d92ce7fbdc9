"""``q4``: groups of 32 four-bit integers with a float16 scale; the values of GGUF's Q4_0.

Suffixes: N outputs, K inputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.groups import Groups
from bandweave.formats.matrix import Matrix, QuantisedMatrix, finite_float32, finite_scales

ZERO = 8  # the stored integer that means 0


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> QuantisedMatrix:
    """Section 2 of docs/numerics.md; ``ValueError`` for NaN, infinity or a scale beyond f16."""
    groups = Groups(inputs=w_NK.shape[1], unit=unit)
    w_NG32 = groups.pad(finite_float32(w_NK))
    first_NG = np.abs(w_NG32).argmax(axis=2)  # the first one on ties; padding stands last
    m_NG = np.take_along_axis(w_NG32, first_NG[:, :, None], axis=2)[:, :, 0]
    empty_NG = m_NG == 0
    s_NG = np.where(empty_NG, np.float32(1), m_NG / np.float32(-8))
    r_NG: npt.NDArray[np.float32] = np.divide(np.float32(1), s_NG)
    q_NG32 = np.minimum(np.trunc(w_NG32 * r_NG[:, :, None] + np.float32(8.5)), 15).astype(np.int8)
    q_NG32[empty_NG] = ZERO
    d_NG = finite_scales(np.where(empty_NG, np.float32(0), s_NG))
    return QuantisedMatrix(format="q4", q_NK=groups.unpad(q_NG32), d_NG=d_NG, unit=unit)


def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
    """``d * (q - 8)`` as float32, ``[outputs, inputs]``."""
    assert isinstance(matrix, QuantisedMatrix)
    group_K = matrix.groups.places_K // 32
    q_NK = (matrix.q_NK - np.int8(ZERO)).astype(np.float32)
    return matrix.d_NG.astype(np.float32)[:, group_K] * q_NK
