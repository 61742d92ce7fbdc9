"""Rates: what the cost model asks of a node and of a link, whoever measured or looked it up.

Every rate is a range with a most likely value. Catalogue hardware and probed machines give the
same classes. Knows no models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Which end of the ranges a cost is computed at.
CASES = ("likely", "slow", "fast")
ANY = "*"  # the format that stands for all that are not named


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A most likely value and its range, ``low <= likely <= high``."""

    likely: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.likely <= self.high:
            raise ValueError(f"{self.likely} does not lie between {self.low} and {self.high}")
        if self.low < 0:
            raise ValueError(f"{self.low} is below zero")

    @classmethod
    def exactly(cls, value: float) -> Estimate:
        return cls(likely=value, low=value, high=value)

    @classmethod
    def within(cls, value: float, factor: float) -> Estimate:
        """``value``, give or take a factor (at least 1)."""
        return cls(likely=value, low=value / factor, high=value * factor)

    def times(self, factor: float) -> Estimate:
        return Estimate(likely=self.likely * factor, low=self.low * factor, high=self.high * factor)

    def rate(self, case: str) -> float:
        """The value of something that is better high: ``slow`` is its low end."""
        return {"likely": self.likely, "slow": self.low, "fast": self.high}[case]

    def time(self, case: str) -> float:
        """The value of something that is better low: ``slow`` is its high end."""
        return {"likely": self.likely, "slow": self.high, "fast": self.low}[case]


NOTHING = Estimate(likely=0.0, low=0.0, high=0.0)
INFINITE = Estimate(likely=math.inf, low=math.inf, high=math.inf)


@dataclass(frozen=True, kw_only=True)
class ComputeRate:
    """FLOP/s (a multiply and an add are two) of a product by its rows, ascending in rows.

    Between two points it is interpolated in the logarithm of the rows; outside the nearest point
    holds. One point: the same for all rows.
    """

    points: tuple[tuple[int, Estimate], ...]

    @classmethod
    def constant(cls, flop_per_s: Estimate) -> ComputeRate:
        return cls(points=((1, flop_per_s),))

    def __post_init__(self) -> None:
        rows = [point[0] for point in self.points]
        if not rows or rows != sorted(set(rows)) or rows[0] < 1:
            raise ValueError(f"rows {rows} must be ascending and at least 1")

    def rate(self, rows: float, case: str) -> float:
        before = self.points[0]
        for after in self.points:
            if after[0] >= rows:
                if after[0] <= before[0]:
                    return after[1].rate(case)
                part = math.log(rows / before[0]) / math.log(after[0] / before[0])
                low, high = before[1].rate(case), after[1].rate(case)
                return low + part * (high - low)
            before = after
        return before[1].rate(case)


@dataclass(frozen=True, kw_only=True)
class HostSide:
    """The machine that a node's cards sit in: its processor computes on what lies in its memory.

    ``card_bytes``: usable on the cards together. ``crossing_s``: what it costs that a layer begins
    on a card and its experts, or the next layer, are the processor's. ``bus_bytes_per_s``: at which
    weights cross to a card for the rows of a prompt; 0 where the engine never does that.
    """

    node: NodeRates
    card_bytes: int
    crossing_s: Estimate
    bus_bytes_per_s: Estimate


@dataclass(frozen=True, kw_only=True)
class NodeRates:
    """One node: a machine, or one accelerator of it, with the engine that runs on it.

    ``weight_bytes_per_s`` and ``compute`` are by weight format (``"*"``: any other): the rate at
    which decoding one row reads weights in that format, and the FLOP/s of its products. Where
    ``host`` is set, all of them are the cards', and ``memory_bytes`` counts both memories.
    """

    name: str
    memory_bytes: int  # usable: what the system and its limits leave
    weight_bytes_per_s: Mapping[str, Estimate]
    compute: Mapping[str, ComputeRate]
    kv_bytes_per_s: Estimate  # at which attention reads the cache while decoding
    attention_flop_per_s: Estimate  # of attention over many rows (prefill)
    state_bytes_per_s: Estimate = INFINITE  # of a recurrent state, for each row of a prompt
    score_s: Estimate = NOTHING  # of a prompt's query-key pair and head: scores go through memory
    expert_compute: ComputeRate | None = None  # of routed experts' products; None: as the others
    half_filled_rows: float = 0.0  # of an expert, that a prompt's products take at half that rate
    layer_overhead_s: Estimate = NOTHING  # a layer's fixed time: launches, norms, barriers
    expert_layer_overhead_s: Estimate | None = None  # the same where a layer routes; None: equal
    latent_overhead_s: Estimate = NOTHING  # what latent attention adds to a layer's fixed time
    linear_overhead_s: Estimate = NOTHING  # what linear attention adds to it
    routing_row_s: Estimate = (
        NOTHING  # of a prompt's row in a layer that routes: sorting, gathering
    )
    step_overhead_s: Estimate = NOTHING  # a step's fixed time: sampling, scheduling
    watts: float | None = None  # while decoding, at the wall
    idle_watts: float | None = None
    price_usd: float | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    host: HostSide | None = None

    def weight_rate(self, format_name: str, case: str) -> float:
        found = self.weight_bytes_per_s.get(format_name)
        return (found or self.weight_bytes_per_s[ANY]).rate(case)

    def compute_rate(self, format_name: str, rows: float, case: str) -> float:
        return (self.compute.get(format_name) or self.compute[ANY]).rate(rows, case)

    def overhead(self, routes: bool, case: str) -> float:
        chosen = self.expert_layer_overhead_s if routes else None
        return (chosen or self.layer_overhead_s).time(case)


@dataclass(frozen=True, kw_only=True)
class LinkRates:
    """A link between two nodes, one direction of it, software included.

    ``latency_s``: from the send to the receiver's knowing, of a message of a few bytes.
    ``message_s``: what a message keeps its sender busy for, so that sends to several peers queue;
    on a shared medium, what it keeps the medium busy for. ``channel``: the medium that all links of
    this name share (Wi-Fi, powerline, a hub), over which each frame goes ``crossings`` times; empty
    where a node's sends meet nobody else's. ``half_duplex``: what a node receives takes of what it
    can send.
    """

    name: str
    latency_s: Estimate
    bytes_per_s: Estimate
    message_s: Estimate = NOTHING
    channel: str = ""
    crossings: int = 1
    half_duplex: bool = False
    source: str = ""

    def transfer_s(self, size_bytes: float, case: str) -> float:
        """The time that the bytes themselves take, without the latency."""
        return size_bytes / self.bytes_per_s.rate(case)


#: No network at all: for single nodes, and for tests of limits.
NO_LINK = LinkRates(name="none", latency_s=NOTHING, bytes_per_s=INFINITE)
