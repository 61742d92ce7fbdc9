"""Emulated links: nodes of one machine that talk as if a slower link joined them. Pure data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bandweave.planning.machines.links import link_from_text
from bandweave.planning.profile.link_profile import LinkProfile


@dataclass(frozen=True, kw_only=True)
class EmulatedLink:
    """``latency_seconds`` one way and ``bytes_per_s`` each way, beside what the nodes' own
    link (TCP of one machine) takes. ``ValueError`` where no link is like that."""

    name: str
    latency_seconds: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.latency_seconds < math.inf and self.bytes_per_s > 0):
            raise ValueError(
                f"a link of {self.latency_seconds:g} s and {self.bytes_per_s:g} bytes/s cannot be; "
                "its latency must be at least 0 and its bandwidth above 0"
            )

    def behind(self, own: LinkProfile) -> LinkProfile:
        """The profile of nodes whose own link is ``own`` when they emulate this one: a message is
        underway for ``latency + bytes / rate`` longer."""

        def wait(payload_bytes: int) -> float:
            return self.latency_seconds + payload_bytes / self.bytes_per_s

        times = (
            replace(time, wait_seconds=time.wait_seconds + wait(time.payload_bytes))
            for time in own.times
        )
        return replace(own, times=tuple(times))


def emulated_link(text: str) -> EmulatedLink:
    """A link of the catalogue by name, or ``latency=300us,bandwidth=10Gbit/s``, as it is most
    likely to be. ``ValueError`` with near names."""
    link = link_from_text(text)
    return EmulatedLink(
        name=text if "=" in text else link.name,
        latency_seconds=link.latency_s.likely,
        bytes_per_s=link.bytes_per_s.likely,
    )
