"""Takeover: how a service gets over the loss of a machine, in its parts. Pure data.

A loss is noticed, those that are left (and spares) are planned anew, load what they lack, and read
the streams' prompts and answers so far again. The first three have times here; the last is played.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from bandweave.planning.simulation.server import Server

_STEPS_OF_SILENCE = 10  # a node is given up after so many predicted steps, or ``silent_s``


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """``closed_s``: until a broken connection is noticed; ``silent_s``: until a machine that only
    says nothing is given up, at least; ``silent_part``: of the failures that are so. ``plan_s``:
    for planning and meeting anew. ``load_bytes_per_s``: at which a machine fetches and packs what
    it lacks. ``standby``: every machine keeps what it would need if another one failed."""

    closed_s: float = 0.3
    silent_s: float = 5.0
    silent_part: float = 0.5
    plan_s: float = 0.5
    load_bytes_per_s: float = 1e9
    standby: bool = False

    def notice_s(self, draw: float, step_s: float) -> float:
        """``draw``: 0 to 1, by chance; ``step_s``: what a step is predicted to take."""
        if draw < self.silent_part:
            return max(self.silent_s, _STEPS_OF_SILENCE * step_s)
        return self.closed_s

    def load_s(self, lacking: Mapping[int, float], *, prepared: bool) -> float:
        """All load at a time. ``lacking``: bytes by machine; ``prepared``: whether what is kept for
        standby had been brought up to date."""
        if self.standby and prepared:
            return 0.0
        return max(lacking.values(), default=0.0) / self.load_bytes_per_s


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A machine's part of a model: ``layers`` and ``share`` as parts of all, from and to."""

    layers: tuple[float, float]
    share: tuple[float, float]
    weight_bytes: float

    def lacks(self, before: Holding | None) -> float:
        """Bytes of it that were not held before."""
        if before is None:
            return self.weight_bytes
        common = _overlap(self.layers, before.layers) * _overlap(self.share, before.share)
        area = _area(self)
        return self.weight_bytes * max(0.0, 1.0 - common / area) if area else 0.0


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How some machines run the model together. ``holdings``: by machine; who is not there is
    idle."""

    server: Server
    holdings: Mapping[int, Holding]

    def lacking(self, before: Mapping[int, Holding]) -> dict[int, float]:
        """Bytes that each machine has to load, by what it held before."""
        return {one: held.lacks(before.get(one)) for one, held in self.holdings.items()}


class Lineup(Protocol):
    """The machines of a replica, by number, spares behind the others."""

    @property
    def machines(self) -> Sequence[str]: ...
    def arrange(self, up: frozenset[int]) -> Arrangement | None:
        """How those that are up run the model; None where they cannot hold it."""
        ...


def standby_bytes(whole: Arrangement, without: Sequence[Arrangement]) -> dict[int, float]:
    """What each machine keeps beside its own part, so that it lacks nothing in any of the
    arrangements that follow the loss of one: a stretch that several of them want is kept once."""
    area = sum(_area(held) for held in whole.holdings.values())
    density = sum(held.weight_bytes for held in whole.holdings.values()) / area
    found = {}
    for machine, own in whole.holdings.items():
        later = [each.holdings[machine] for each in without if machine in each.holdings]
        corners = [own, *later]
        layers = sorted({edge for held in corners for edge in held.layers})
        shares = sorted({edge for held in corners for edge in held.share})
        extra = 0.0
        for low, high in pairwise(layers):
            for left, right in pairwise(shares):
                if not _covers(own, low, left) and any(_covers(one, low, left) for one in later):
                    extra += (high - low) * (right - left)
        found[machine] = extra * density
    return found


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A failure that streams got over: seconds of each part, and machines before and after.
    ``prefill_s``: until every stream that had begun had its next token; None where the simulation
    ended before."""

    at_s: float
    notice_s: float
    plan_s: float
    load_s: float
    prefill_s: float | None
    waited_s: float  # for machines, where those left could not hold the model
    before: int
    after: int
    streams: int


def _area(held: Holding) -> float:
    return (held.layers[1] - held.layers[0]) * (held.share[1] - held.share[0])


def _covers(held: Holding, layer: float, share: float) -> bool:
    """Whether the cell of which this is the first corner is a part of it."""
    return held.layers[0] <= layer < held.layers[1] and held.share[0] <= share < held.share[1]


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
