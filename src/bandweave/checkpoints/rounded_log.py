"""Logarithms that are the same on every machine: each rounded once, from thirty digits.

Processors' and systems' own differ in the last bit, and nodes must hold equal weights. For vectors
of a few numbers a layer.
"""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt

_CONTEXT = Context(prec=30)


def rounded_log(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The natural logarithms of positive finite numbers, as the nearest float64 rounded to
    float32."""
    logs = [float(_CONTEXT.ln(Decimal(float(value)))) for value in values.ravel()]
    return np.array(logs, np.float64).astype(np.float32).reshape(values.shape)
