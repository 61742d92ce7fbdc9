"""LinkProfile: what was measured of the link between two nodes. Plain data with lookups."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bandweave.planning.profile.interpolation import interpolate


@dataclass(frozen=True, kw_only=True)
class LinkTime:
    """An all-reduce of two nodes in which each sends ``payload_bytes``: seconds to send, to wait
    for the other, and to encode, check and add, beyond what a node takes for a sum of its own."""

    payload_bytes: int
    wire_seconds: float
    wait_seconds: float
    other_seconds: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class LinkProfile:
    """The link between two nodes. ``transport`` is ``"shared"`` (memory of one host) or
    ``"tcp"``."""

    transport: str
    times: tuple[LinkTime, ...]

    def __post_init__(self) -> None:
        if not self.times:
            raise ValueError("a link's profile has no times")

    @property
    def latency_seconds(self) -> float:
        """Of the smallest message that was measured."""
        first = min(self.times, key=lambda time: time.payload_bytes)
        return first.wire_seconds + first.wait_seconds

    @property
    def bytes_per_s(self) -> float:
        """What the link carries each way, from the largest messages that were measured."""
        times = sorted(self.times, key=lambda time: time.payload_bytes)
        last = times[-1]
        seconds = last.wire_seconds + last.wait_seconds - self.latency_seconds
        return last.payload_bytes / seconds if seconds > 0 else math.inf

    def at(self, payload_bytes: float) -> LinkTime:
        """The times of a message of that size, on straight lines between the sizes that were
        measured (a latency and a rate), in proportion beyond the largest."""
        size = max(float(payload_bytes), 1.0)
        largest = max(time.payload_bytes for time in self.times)
        scale = max(1.0, size / largest) if largest else 1.0

        def value(name: str) -> float:
            points = {time.payload_bytes: getattr(time, name) for time in self.times}
            return interpolate(points, size, logarithmic=False) * scale

        return LinkTime(
            payload_bytes=round(size),
            wire_seconds=value("wire_seconds"),
            wait_seconds=value("wait_seconds"),
            other_seconds=value("other_seconds"),
            spread=max(time.spread for time in self.times),
        )


FREE_LINK = LinkProfile(
    transport="free",
    times=(
        LinkTime(payload_bytes=0, wire_seconds=0, wait_seconds=0, other_seconds=0, spread=0),
        LinkTime(payload_bytes=1, wire_seconds=0, wait_seconds=0, other_seconds=0, spread=0),
    ),
)
