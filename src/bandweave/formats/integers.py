"""What the integers of quantised matrices stand for, in every format.

Suffixes: N outputs, K inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bandweave.formats import mxfp4, nf4, q4, ulaw4
from bandweave.formats.code_book import CodeBook
from bandweave.formats.matrix import Matrix, QuantisedMatrix

BOOKS: Mapping[str, CodeBook] = {"mxfp4": mxfp4.BOOK, "nf4": nf4.BOOK, "ulaw4": ulaw4.BOOK}


def zero_of(format: str) -> int:
    """The element of ``q_NK`` that means 0; it pads short groups."""
    return BOOKS[format].zero if format in BOOKS else q4.ZERO if format == "q4" else 0


def integers(matrix: QuantisedMatrix) -> npt.NDArray[np.int8]:
    """The integers that are multiplied by scales and activations, ``[outputs, inputs]``."""
    if matrix.format in BOOKS:
        return BOOKS[matrix.format].integers(matrix.q_NK)
    return matrix.q_NK - np.int8(zero_of(matrix.format))


def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
    """The scale times the integer, as float32, ``[outputs, inputs]``."""
    assert isinstance(matrix, QuantisedMatrix)
    group_K = matrix.groups.places_K // 32
    return matrix.d_NG.astype(np.float32)[:, group_K] * integers(matrix).astype(np.float32)
