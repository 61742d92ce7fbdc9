"""Interpolation between points that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping


def interpolate(points: Mapping[int, float], x: float, *, logarithmic: bool = True) -> float:
    """The value at ``x`` between measured points, on straight lines over logarithms (a power law
    between neighbours; a zero makes its line a plain one), or on plain lines; beyond the ends the
    end's value."""
    xs = sorted(points)
    x = min(max(x, xs[0]), xs[-1])
    if x in points:
        return points[int(x)]
    high = next(i for i, value in enumerate(xs) if value > x)
    a, b = xs[high - 1], xs[high]
    first, last = points[a], points[b]
    if not logarithmic or min(first, last) <= 0 or a <= 0:
        return first + (x - a) / (b - a) * (last - first)
    return first * (last / first) ** (math.log(x / a) / math.log(b / a))
