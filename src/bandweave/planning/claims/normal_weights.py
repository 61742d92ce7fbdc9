"""What a weight format loses of normally distributed weights."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from bandweave.formats.registry import get_format

_ROWS, _INPUTS, _STEP = 128, 256, 0.6180339887498949


@lru_cache
def lost_of_normal_weights(format: str) -> float:
    """The squares of what quantising changes, relative to the weights'.

    The weights are quantiles at equidistributed points (multiples of the golden ratio, modulo 1):
    the same everywhere, and as good as random ones in groups of 32 once they are shuffled.
    """
    count = _ROWS * _INPUTS
    places = (np.arange(1, count + 1) * _STEP) % 1
    order = np.random.default_rng(0).permutation(count)
    values = np.array([NormalDist().inv_cdf(place) for place in places])[order]
    w_NK = values.astype(np.float32).reshape(_ROWS, _INPUTS)
    matrix = get_format(format).quantise(w_NK, _INPUTS)
    lost_NK = w_NK.astype(np.float64) - get_format(format).dequantise(matrix)
    return float((lost_NK**2).sum() / (w_NK.astype(np.float64) ** 2).sum())
