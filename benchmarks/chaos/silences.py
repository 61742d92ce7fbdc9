"""Silences: how long streams said nothing after a fault. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.streams import Heard

_BEGINS_SECONDS = 1.0
_SPOKE_SECONDS = 1.0
PARTS = ("noticed", "planned", "loaded", "prefilled")
REST = "rest"


@dataclass(frozen=True, kw_only=True)
class Felt:
    """What a fault meant to the streams that were under way: of each, seconds from the fault to the
    token that ended the silence, ascending. ``spoke``: of those that said something just before it;
    the others waited for a place, or for their prompt to be read, as they do without a fault.
    ``recoveries``: as the server tells of them."""

    title: str
    kind: str
    at_s: float
    silences: tuple[float, ...]
    spoke: tuple[float, ...] = ()
    recoveries: tuple[Mapping[str, Any], ...] = ()

    @property
    def median(self) -> float:
        """Of those that spoke."""
        return statistics.median(self.spoke) if self.spoke else 0.0

    @property
    def worst(self) -> float:
        return max(self.spoke, default=0.0)

    def parts(self) -> dict[str, float] | None:
        """Seconds of the recoveries from the fault by part, and the ``rest`` of the median silence:
        what passed before the last sign of life counted as such, until a stream's own next token,
        and while machines joined again. None where nothing had to be recovered from, or the server
        tells of nothing."""
        failed = [one for one in self.recoveries if one.get("kind", "failed") == "failed"]
        if not failed:
            return None
        found = {name: sum(float(one["seconds"][name]) for one in failed) for name in PARTS}
        return {**found, REST: max(0.0, self.median - sum(found.values()))}


def silence_after(heard: Heard, fault: float) -> float | None:
    """Seconds from a fault to the end of the longest silence of a stream that had begun within a
    second of it: to the next token. None where the stream was not under way, or says nothing more
    (it is over, or was lost)."""
    if heard.asked > fault or (heard.over is not None and heard.over <= fault):
        return None
    times = [heard.asked, *heard.came]
    longest: tuple[float, float] | None = None
    for before, after in zip(times, times[1:], strict=False):
        if after > fault and before < fault + _BEGINS_SECONDS:
            # What lies before the fault is no consequence of it.
            length = after - max(before, fault)
            if longest is None or length > longest[0]:
                longest = (length, after)
    return None if longest is None else longest[1] - fault


def silences(all_heard: Sequence[Heard], fault: float) -> tuple[float, ...]:
    """Of every stream that was under way, ascending."""
    found = (silence_after(one, fault) for one in all_heard)
    return tuple(sorted(one for one in found if one is not None))


def back(all_heard: Sequence[Heard], fault: float, now: float, calm: float) -> bool:
    """Whether all streams that were under way at a fault have gone on since, and some token came
    within the last ``calm`` seconds."""
    last = fault
    for one in all_heard:
        came = one.over or (one.came[-1] if one.came else one.asked)
        last = max(last, came)
        if one.asked <= fault and one.over is None and came <= fault:
            return False
    return last > fault and now - last < calm


def spoke(heard: Heard, fault: float) -> bool:
    """Whether a stream said something just before a fault, and went on to speak."""
    return any(fault - _SPOKE_SECONDS < at <= fault for at in heard.came)
