"""Profile: what was measured of machines, and of the links between them. Plain data with lookups.

Times are medians over several rounds; ``spread`` is the interquartile range over the median, so
that a noisy machine shows. Knows no models, no files and no measuring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bandweave.planning.profile.interpolation import interpolate
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.record import from_json, to_json

SCHEMA_VERSION = 2
HERE = "here"  # this machine, among a profile's machines
HERE_SHARED, HERE_TCP = f"{HERE} shared", f"{HERE} tcp"  # links between its nodes


@dataclass(frozen=True, kw_only=True)
class ReadRate:
    """A plain read by so many threads together."""

    threads: int
    bytes_per_s: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class ProductRate:
    """Products of packed weights in ``format`` with ``rows`` rows: seconds for each byte of weights
    beyond the cost of the operation itself, of its inputs and of its outputs; ``on_grid``: of a
    ``linear_grid``; ``cached``: weights that stay in the processor's caches from step to step."""

    format: str
    on_grid: bool
    cached: bool
    rows: int
    threads: int
    seconds_per_byte: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class AttentionRate:
    """Attention by one thread: seconds for each row, position, query head and dim. ``together``:
    query heads that read one KV head; ``streamed``: keys come from memory, as in decoding, or from
    a cache that the rows of a prompt share."""

    kv_format: str
    together: int
    streamed: bool
    threads: int
    seconds: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class ElementRate:
    """An operation that goes through its elements one by one: seconds for each, by one thread;
    ``first_seconds`` more for those of the first row, which finds caches full of weights.
    ``kind`` is that of the operation, ``"attention"`` (the latter alone), or of products with
    quantised weights ``"quantise_q4"``, ``"quantise_q8"`` .. (of an input) and ``"outputs_q4"``,
    ``"outputs_q8"`` .. (beside an output's multiply-adds)."""

    kind: str
    seconds: float
    first_seconds: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What an operation costs that computes next to nothing, its barrier included."""

    threads: int
    seconds_per_op: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Node 0 beside the operations: of every step (its first row's embedding included), of every
    row, and of every logit where the logits are looked at."""

    seconds_per_step: float
    seconds_per_row: float
    seconds_per_logit: float


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """One machine. ``cpus`` as many threads as it was measured with at most; ``cache_bytes`` of its
    largest cache, 0 where unknown; ``measured_at`` in UTC (ISO 8601); ``quick``: only what a short
    look could see."""

    processor: str
    isa: str
    cpus: int
    memory_bytes: int
    cache_bytes: int
    version: str
    numerics_version: int
    measured_at: str
    quick: bool
    reads: tuple[ReadRate, ...]
    products: tuple[ProductRate, ...]
    attention: tuple[AttentionRate, ...]
    elements: tuple[ElementRate, ...]
    overheads: tuple[Overhead, ...]
    step: StepCost

    def __post_init__(self) -> None:
        for name in ("reads", "products", "attention", "elements", "overheads"):
            if not getattr(self, name):
                raise ValueError(f"a machine's profile has no {name}")
        for product in self.products:
            if product.rows < 1 or product.threads < 1 or product.seconds_per_byte <= 0:
                raise ValueError(f"a product's rate makes no sense: {product}")
        for read in self.reads:
            if read.threads < 1 or read.bytes_per_s <= 0:
                raise ValueError(f"a read's rate makes no sense: {read}")
        if self.cpus < 1:
            raise ValueError("a machine has at least 1 processor")

    @property
    def formats(self) -> tuple[str, ...]:
        """The weight formats that were measured."""
        return tuple(dict.fromkeys(product.format for product in self.products))

    def read_bytes_per_s(self, threads: int) -> float:
        """Bytes per second that so many threads read together."""
        points = {read.threads: read.bytes_per_s for read in self.reads}
        return interpolate(points, threads)

    def seconds_per_byte(
        self, format: str, *, on_grid: bool, rows: int, threads: int, cached: bool = False
    ) -> float:
        """Of a product, as in ``ProductRate``, between what was measured. ``ValueError`` for a
        format that was not measured."""
        known = [p for p in self.products if p.format == format]
        if not known:
            raise ValueError(
                f"the profile knows the formats {', '.join(self.formats)}, not {format}; "
                "`bandweave probe` measures all of them"
            )
        known = [p for p in known if p.on_grid == on_grid] or known
        if cached:
            # Rows are many or weights are: more rows were measured from memory alone.
            known = [p for p in known if p.cached or p.rows > 1] or known
        else:
            known = [p for p in known if not p.cached] or known
        by_threads = {}
        for count in {p.threads for p in known}:
            points = {p.rows: p.seconds_per_byte for p in known if p.threads == count}
            most = max(points)
            value = interpolate(points, rows)
            # Beyond the most rows that were measured the kernel has reached its rate.
            by_threads[count] = value * max(1.0, rows / most)
        return interpolate(by_threads, threads)

    def attention_seconds(
        self, kv_format: str, *, together: float, streamed: bool, threads: int
    ) -> float:
        """For each row, position, query head and dim, on one of ``threads`` threads."""
        known = [a for a in self.attention if a.streamed == streamed] or list(self.attention)
        known = [a for a in known if a.kv_format == kv_format] or known
        by_threads = {}
        for count in {a.threads for a in known}:
            points = {a.together: a.seconds for a in known if a.threads == count}
            by_threads[count] = interpolate(points, together)
        return interpolate(by_threads, threads)

    def element_seconds(self, kind: str, rows: float) -> float:
        """For each element of such an operation on so many rows; 0 where it was not measured."""
        for known in self.elements:
            if known.kind == kind:
                return known.seconds + known.first_seconds / max(1.0, rows)
        return 0.0

    def op_seconds(self, threads: int) -> float:
        """What every operation costs at so many threads."""
        points = {o.threads: o.seconds_per_op for o in self.overheads}
        return interpolate(points, threads)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """``machines`` by address (``host:port`` of a worker) or ``HERE``; ``links`` by the two ends,
    ``"a b"`` in alphabetical order; between nodes of this machine ``"here shared"`` and
    ``"here tcp"``."""

    schema: int = SCHEMA_VERSION
    machines: Mapping[str, MachineProfile] = field(default_factory=dict)
    links: Mapping[str, LinkProfile] = field(default_factory=dict)

    def link(self, a: str, b: str) -> LinkProfile | None:
        """The link between two ends, None where it was not measured."""
        return self.links.get(link_name(a, b))

    def joined(self, other: Profile) -> Profile:
        """This profile with what a newer one knows in the place of its own."""
        return replace(
            self,
            machines={**self.machines, **other.machines},
            links={**self.links, **other.links},
        )

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> Profile:
        """``ValueError`` says which field is wrong, or that the schema is another version's."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"it is no profile of schema version {SCHEMA_VERSION}")
        return from_json(cls, value, "the profile")


def link_name(a: str, b: str) -> str:
    """The key of a link in ``Profile.links``."""
    if a == b == HERE:
        return HERE_SHARED
    return " ".join(sorted((a, b)))


def stale_reason(
    machine: MachineProfile, *, version: str, numerics_version: int, processor: str | None = None
) -> str:
    """Why a machine's profile no longer speaks for it; empty where it does."""
    if machine.version != version:
        return f"it is of bandweave {machine.version}, this is {version}"
    if machine.numerics_version != numerics_version:
        return f"it is of numerics version {machine.numerics_version}, this is {numerics_version}"
    if processor is not None and machine.processor != processor:
        return f"it is of another processor ({machine.processor})"
    return ""


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The median and the interquartile range over it."""
    if not values:
        raise ValueError("0 values have no median")
    ordered = sorted(values)

    def quantile(part: float) -> float:
        at = part * (len(ordered) - 1)
        low = math.floor(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (at - low) * (ordered[high] - ordered[low])

    middle = quantile(0.5)
    return middle, (quantile(0.75) - quantile(0.25)) / middle if middle > 0 else 0.0
