"""How the code books with float16 scales choose a group's: of three, the one that loses least.

Suffixes: N outputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.code_book import CodeBook
from bandweave.formats.groups import Groups
from bandweave.formats.matrix import QuantisedMatrix, finite_scales

# Of the scale that makes the largest weight the end of the book. Smaller ones cut it off, and are
# finer for the others.
FACTORS = (np.float32(1), np.float32(15 / 16), np.float32(7 / 8))


def quantise_with_half_scales(
    format: str,
    book: CodeBook,
    w_NG32: npt.NDArray[np.float32],
    s_NG: npt.NDArray[np.float32],
    groups: Groups,
) -> QuantisedMatrix:
    """``s_NG`` are the first scales, 0 where a group is; ``ValueError`` where one is beyond f16."""
    halves_NG = [finite_scales(s_NG * factor) for factor in FACTORS]
    scales_NG = [half_NG.astype(np.float32) for half_NG in halves_NG]
    codes_NG32, chosen_NG = book.choose(w_NG32, scales_NG)
    d_NG = np.choose(chosen_NG, halves_NG) + np.float16(0)  # -0 becomes +0
    return QuantisedMatrix(
        format=format, q_NK=groups.unpad(codes_NG32), d_NG=d_NG, unit=groups.unit
    )
