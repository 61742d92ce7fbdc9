"""What becomes of numbers when they are stored (docs/numerics.md, section 11)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SMALLEST = np.float32(2.0**-40)  # a stored number has this magnitude at least, or is +0


def stored(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values, +0 where a magnitude is below ``SMALLEST``; a NaN stays."""
    return np.where(np.abs(values) < SMALLEST, np.float32(0), values)
