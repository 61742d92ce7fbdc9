"""``q8``: groups of 32 signed bytes with a float16 scale; the values of GGUF's Q8_0.

Suffixes: N outputs, K inputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.groups import Groups
from bandweave.formats.matrix import Matrix, QuantisedMatrix, finite_float32, finite_scales


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> QuantisedMatrix:
    """Section 2 of docs/numerics.md; ``ValueError`` for NaN, infinity or a scale beyond f16."""
    groups = Groups(inputs=w_NK.shape[1], unit=unit)
    w_NG32 = groups.pad(finite_float32(w_NK))
    amax_NG = np.abs(w_NG32).max(axis=2)
    empty_NG = amax_NG == 0
    s_NG = np.where(empty_NG, np.float32(1), amax_NG / np.float32(127))
    r_NG: npt.NDArray[np.float32] = np.divide(np.float32(1), s_NG)
    q_NG32 = round_half_away(w_NG32 * r_NG[:, :, None]).astype(np.int8)
    q_NG32[empty_NG] = 0
    d_NG = finite_scales(np.where(empty_NG, np.float32(0), s_NG))
    return QuantisedMatrix(format="q8", q_NK=groups.unpad(q_NG32), d_NG=d_NG, unit=unit)


def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
    """``d * q`` as float32, ``[outputs, inputs]``."""
    assert isinstance(matrix, QuantisedMatrix)
    group_K = matrix.groups.places_K // 32
    return matrix.d_NG.astype(np.float32)[:, group_K] * matrix.q_NK.astype(np.float32)


def round_half_away(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Nearest integer, halves away from zero (C's ``roundf``): exact, not ``floor(x + 0.5)``."""
    whole = np.trunc(values)
    away = np.abs(values - whole) >= np.float32(0.5)  # the difference is exact
    return whole + np.where(away, np.copysign(np.float32(1), values), np.float32(0))
