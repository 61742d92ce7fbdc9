"""Numbers with units as people write them: ``204GB/s``, ``40 Gbit/s``, ``300us``, ``4 TFLOPS``."""

from __future__ import annotations

import math
import re
from typing import Any

from bandweave.shown import shown

_PREFIXES = {
    "": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15,
    "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40,
}  # fmt: skip
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPELLINGS = {
    "B": ("b", "byte", "bytes"),
    "B/s": ("b/s", "bps", "byte/s", "bytes/s"),
    "FLOP/s": ("flop/s", "flops", "flop", "op/s", "ops"),
    "W": ("w", "watt", "watts"),
    "USD": ("usd", "$"),
}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(.*?)\s*", re.IGNORECASE)


def quantity(value: Any, unit: str, *, what: str) -> float:
    """A positive number in ``unit`` (``B``, ``B/s``, ``FLOP/s``, ``W``, ``USD``, ``s``), from
    text; watts and prices may be plain numbers. Bits are divided by eight: ``80Gbit/s`` is 1e10
    B/s."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number, suffix = _float(value), ""
    else:
        match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(
                f"{what} is {shown(value)}; it must be a number, like {_example(unit)}"
            )
        number, suffix = float(match[1]), match[2]
    factor = _factor(suffix, unit)
    if factor is None:
        raise ValueError(f"{what} is {shown(value)}; it must be a quantity like {_example(unit)}")
    if not 0 < number * factor < math.inf:
        raise ValueError(
            f"{what} is {shown(value)}; it must be above 0 and finite, like {_example(unit)}"
        )
    return number * factor


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _factor(suffix: str, unit: str) -> float | None:
    if not suffix:  # 204 of what?
        return 1.0 if unit in ("W", "USD") else None
    if unit == "s":
        return _SECONDS.get(suffix.lower())
    lowered = suffix.lower().replace(" ", "")
    if unit == "B/s":
        match = re.fullmatch(r"([kmgtp]?i?)bit(?:/s)?|([kmgtp])bps", lowered)
        if match is not None:
            # Gbps is always bits; GB/s always bytes.
            return _PREFIXES[match[1] if match[1] is not None else match[2]] / 8
        if lowered.rstrip("b") in _PREFIXES and lowered.endswith("b"):
            return _PREFIXES[lowered[:-1]]  # "204GB" for "204GB/s"
    for spelling in _SPELLINGS[unit]:
        if lowered.endswith(spelling) and lowered[: -len(spelling)] in _PREFIXES:
            return _PREFIXES[lowered[: -len(spelling)]]
    return None


def _example(unit: str) -> str:
    return {"B": "256GB", "B/s": "204GB/s", "FLOP/s": "4TFLOP/s", "W": "200W", "USD": "1500",
            "s": "300us"}[unit]  # fmt: skip
