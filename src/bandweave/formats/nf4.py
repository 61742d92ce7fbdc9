"""``nf4``: groups of 32 codes of NormalFloat4 with a float16 scale.

The book is that of Dettmers et al., QLoRA (2023), appendix E, times 63 and rounded: quantiles of a
normal distribution between -1 and 1.

Suffixes: N outputs, K inputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.code_book import CodeBook
from bandweave.formats.groups import Groups
from bandweave.formats.half_scales import quantise_with_half_scales
from bandweave.formats.matrix import QuantisedMatrix, finite_float32

BOOK = CodeBook((-63, -44, -33, -25, -18, -12, -6, 0, 5, 10, 16, 21, 28, 35, 46, 63))


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> QuantisedMatrix:
    """The numbers of docs/numerics.md, section 2; ``ValueError`` for a NaN, an infinity or a scale
    beyond f16. The largest weight, whatever its sign, is near the end of the book."""
    groups = Groups(inputs=w_NK.shape[1], unit=unit)
    w_NG32 = groups.pad(finite_float32(w_NK))
    s_NG = np.abs(w_NG32).max(axis=2) / np.float32(63)
    return quantise_with_half_scales("nf4", BOOK, w_NG32, s_NG, groups)
