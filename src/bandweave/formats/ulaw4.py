"""``ulaw4``: groups of 32 codes of a mu-law with mu = 1 and a float16 scale.

A mu-law spaces its levels as ``((1 + mu)^|x| - 1) / mu`` with the sign of x; G.711's telephony has
mu = 255 and 256 levels. Here x is -8/8, -7/8 .. 7/8, so that no code is lost to a second zero; the
levels are multiplied by 63 and rounded. docs/formats.md says why mu is 1.

Suffixes: N outputs, K inputs, G groups, 32 the elements of a group, padded with zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats.code_book import CodeBook
from bandweave.formats.groups import Groups
from bandweave.formats.half_scales import quantise_with_half_scales
from bandweave.formats.matrix import QuantisedMatrix, finite_float32

BOOK = CodeBook((-63, -53, -43, -34, -26, -19, -12, -6, 0, 6, 12, 19, 26, 34, 43, 53))


def quantise(w_NK: npt.NDArray[np.float32], unit: int) -> QuantisedMatrix:
    """The numbers of docs/numerics.md, section 2; ``ValueError`` for a NaN, an infinity or a scale
    beyond f16. Scales have the sign that puts the largest weight, the first one on ties, at -63."""
    groups = Groups(inputs=w_NK.shape[1], unit=unit)
    w_NG32 = groups.pad(finite_float32(w_NK))
    first_NG = np.abs(w_NG32).argmax(axis=2)  # the first one on ties; padding stands last
    m_NG = np.take_along_axis(w_NG32, first_NG[:, :, None], axis=2)[:, :, 0]
    return quantise_with_half_scales("ulaw4", BOOK, w_NG32, m_NG / np.float32(-63), groups)
