"""``bf16``: the upper 16 bits of a float32, rounded to nearest even."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.matrix import Matrix, PlainMatrix, finite_float32


def to_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Finite float32 values rounded to bf16, nearest even; large ones may become infinite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bf16 bits as float32, exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> PlainMatrix:
    """The rounded weights; ``ValueError`` where one is not finite, before or after rounding."""
    rounded_NK = from_bits(to_bits(finite_float32(w_NK)))
    return PlainMatrix(format="bf16", w_NK=finite_float32(rounded_NK), unit=unit)


def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
    """The weights' values, ``[outputs, inputs]``."""
    assert isinstance(matrix, PlainMatrix)
    return matrix.w_NK
