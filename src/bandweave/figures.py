"""Figures as people write them: three digits that matter, no exponents, units that fit. Pure."""

from __future__ import annotations

import math

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def figure(value: float) -> str:
    """Three digits that matter: ``0.0712``, ``8.3``, ``378``, ``1080``; never ``1.08e+03``."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 99.95:
        return f"{value:.0f}"
    if size == 0 or size < 1e-9:
        return "0"
    text = f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parameters(count: float) -> str:
    """Of a model: ``1.03 T``, ``671 B``, ``135 M``."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if count >= scale * 0.9995:
            return f"{figure(count / scale)} {unit}"
    return f"{count:.0f}"


def seconds(value: float) -> str:
    """A duration: ``410 us``, ``35.1 ms``, ``1.24 s``, ``12 min``, ``286 min``, ``16 h``."""
    if value >= 3 * _DAY:
        return f"{_two(value / _DAY)} days"
    if value >= 10 * _HOUR:
        return f"{_two(value / _HOUR)} h"
    if value >= 119.5:
        return f"{_two(value / _MINUTE)} min"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale * 0.9995:
            return f"{figure(value / scale)} {unit}"
    return f"{value * 1e6:.0f} us"


def gib(count: float) -> str:
    """Bytes in the GiB that memory is sold in, without the unit."""
    return figure(count / (1 << 30))


def _two(value: float) -> str:
    return f"{value:.2g}" if value < 9.95 else f"{value:.0f}"
