"""``mxfp4``: groups of 32 numbers of E2M1 with a power of two, as the OCP's microscaling formats
specification 1.0 has them (section 5.3.3). Weights that are such numbers come back exactly.

Suffixes: N outputs, K inputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.code_book import CodeBook
from bandweave.formats.groups import Groups
from bandweave.formats.matrix import QuantisedMatrix, finite_float32

# Twice 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, at the code that the standard gives them.
BOOK = CodeBook((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> QuantisedMatrix:
    """The numbers of docs/numerics.md, section 2; ``ValueError`` for a NaN or an infinity.

    Of the power of two that makes the largest weight 4 to 8 and the one that makes it 2 to 4, a
    group has the one that loses less. ``d_NG`` is half of it, since the book is doubled.
    """
    groups = Groups(inputs=w_NK.shape[1], unit=unit)
    w_NG32 = groups.pad(finite_float32(w_NK))
    amax_NG = np.abs(w_NG32).max(axis=2)
    empty_NG = amax_NG == 0
    _, exponent_NG = np.frexp(np.where(empty_NG, np.float32(1), amax_NG))
    scales_NG = [np.ldexp(np.float32(1), exponent_NG - 4), np.ldexp(np.float32(1), exponent_NG - 3)]
    codes_NG32, chosen_NG = BOOK.choose(w_NG32, scales_NG)
    codes_NG32[empty_NG] = BOOK.zero
    d_NG = np.where(empty_NG, np.float32(0), np.choose(chosen_NG, scales_NG))
    return QuantisedMatrix(
        format="mxfp4", q_NK=groups.unpad(codes_NG32), d_NG=d_NG.astype(np.float32), unit=unit
    )
