"""``f32``: weights as they are, but for the tiniest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.matrix import Matrix, PlainMatrix, finite_float32


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> PlainMatrix:
    """The weights ``[outputs, inputs]``; ``ValueError`` where one is not finite."""
    return PlainMatrix(format="f32", w_NK=finite_float32(w_NK), unit=unit)


def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
    """The weights' values, ``[outputs, inputs]``."""
    assert isinstance(matrix, PlainMatrix)
    return matrix.w_NK
