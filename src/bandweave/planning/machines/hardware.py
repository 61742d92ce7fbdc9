"""Hardware: machines and accelerators by name, as their makers or measurements describe them.

Knows what a data sheet says: memory, bandwidth, dense FLOP/s. What an engine gets out of it is
``efficiency``. A value that nobody published is None, never a guess. Memory is sold in GiB that
are called GB; bandwidth is in powers of ten.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from bandweave.planning.machines.hardware_names import hardware_matcher
from bandweave.planning.machines.tables import Row, number, required, rows
from bandweave.shown import shown

GB = 10**9
#: What memory is sold in, whatever the box says.
GIB = 1 << 30

#: Kinds whose accelerator has memory of its own, beside that of the processor.
DISCRETE = ("geforce", "nvidia-pro", "nvidia-dc", "radeon", "instinct", "arc")
#: Kinds that compute on their processor alone.
PROCESSORS = ("cpu-server", "cpu-desktop", "sbc")
#: Kinds whose memory is put in by whoever owns them, in any size.
SLOTTED = ("cpu-server", "cpu-desktop")


@dataclass(frozen=True, kw_only=True)
class Price:
    """``kind``: ``launch`` (the maker's), ``new`` or ``used``; ``date``: when, as YYYY-MM, empty
    for a launch."""

    kind: str
    usd: float
    date: str = ""
    source: str = ""

    def __str__(self) -> str:
        """``$850 used, 2026-02``."""
        when = f", {self.date}" if self.date else ""
        return f"${self.usd:,.0f} {'at launch' if self.kind == 'launch' else self.kind}{when}"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One machine, or one accelerator card. FLOP/s are dense; ``flop_per_s`` by type: ``fp32``,
    ``fp16`` (or bf16, by matrix units, fp32 accumulation), ``fp8``, ``int8``, ``fp4``."""

    name: str
    title: str
    kind: str
    memory_bytes: int
    memory_options_bytes: tuple[int, ...] = ()
    bytes_per_s: float  # peak, of the memory that the accelerator reads
    flop_per_s: Mapping[str, float] = field(default_factory=dict)
    sparse_factor: float = 1.0  # by which data sheets like to multiply
    cpu_bytes_per_s: float | None = None  # what its processor can read
    sockets: int = 1
    cpu_cores: int | None = None
    cpu_flop_per_s: float | None = None  # fp32: cores x clock x FLOPs a cycle
    host: str | None = None  # the machine that a card is assumed to sit in
    cards: tuple[Hardware, ...] = ()  # that were put into this machine, on its ``bus``
    bus: str = ""
    watts: float | None = None  # rated
    measured_watts: float | None = None  # of the whole machine while it runs a model
    price_usd: float | None = None  # new: of today where that is known, else at its launch
    prices: tuple[Price, ...] = ()  # all that are known
    confidence: str = ""
    source: str = ""

    @property
    def is_processor(self) -> bool:
        return self.kind in PROCESSORS

    @property
    def is_card(self) -> bool:
        return self.kind in DISCRETE


def hardware_names() -> tuple[str, ...]:
    return tuple(_catalogue())


def find_hardware(name: str) -> Hardware:
    """The hardware that a name means, as people write it; a size picks one of its memory sizes.

    ``M3 Ultra 512`` is ``m3-ultra-512``; without a size it has the largest. ``ValueError`` with
    near names where there is none.
    """
    catalogue = _catalogue()
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    if key in catalogue:
        return catalogue[key]
    base, _, size = key.rpartition("-")
    if base in catalogue and size.isascii() and size.isdigit():
        return _with_memory(catalogue[base], float(size[:9]))
    found = hardware_matcher().find(name)
    if found is None:
        near = hardware_matcher().near(name)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"no hardware is called {shown(name)}; {hint}`plan --list machines WORDS` finds names"
        )
    hardware = catalogue[found.key]
    return hardware if found.size_gib is None else _with_memory(hardware, found.size_gib)


def _with_memory(hardware: Hardware, gib: float) -> Hardware:
    """The hardware with so much memory; ``ValueError`` where it is not sold so."""
    options, asked = hardware.memory_options_bytes, round(gib * GIB)
    slotted = hardware.kind in SLOTTED and GIB <= asked <= max(options)
    if asked not in options and not slotted:
        sizes = ", ".join(f"{option / GIB:g}" for option in options)
        raise ValueError(
            f"{hardware.name} does not come with {gib:g} GB of memory; it comes with {sizes}"
        )
    if len(options) == 1 and asked == options[0]:
        return hardware
    row = next(row for row in rows("hardware") if row["name"] == hardware.name)
    prices = _prices(row, asked)
    return dataclasses.replace(
        hardware,
        name=f"{hardware.name}-{gib:g}",
        title=f"{hardware.title}, {gib:g} GB",
        memory_bytes=asked,
        price_usd=_new_price(prices),
        prices=prices,
    )


def _prices(row: Row, memory_bytes: int) -> tuple[Price, ...]:
    """What the hardware costs with so much memory, as far as that is known."""
    launch = _price(row, memory_bytes)
    found = [] if launch is None else [Price(kind="launch", usd=launch, source=row["source"])]
    for each in rows("prices"):
        if each["name"] == row["name"] and required(each, "memory_gb") * GIB == memory_bytes:
            found.append(Price(kind=each["kind"], usd=required(each, "usd"), date=each["date"],
                               source=each["source"]))  # fmt: skip
    return tuple(found)


def _new_price(prices: tuple[Price, ...]) -> float | None:
    """Of today where that is known, else of the launch."""
    by_kind = {price.kind: price.usd for price in prices}
    return by_kind.get("new", by_kind.get("launch"))


def _price(row: Row, memory_bytes: int) -> float | None:
    """The price, unless the table says that it is that of another memory size."""
    of_size = re.search(r"\((\d+) GB\)", row["price_usd"])
    if of_size is not None and int(of_size[1]) * GIB != memory_bytes:
        return None
    return number(row, "price_usd")


@lru_cache(maxsize=1)
def _catalogue() -> Mapping[str, Hardware]:
    return {row["name"]: _hardware(row) for row in rows("hardware")}


def _hardware(row: Row) -> Hardware:
    sizes = tuple(int(float(text) * GIB) for text in row["memory_gb"].split())
    prices = _prices(row, max(sizes))
    types = {"fp32": "fp32_tflops", "fp16": "fp16_tflops", "fp8": "fp8_tflops",
             "int8": "int8_tops", "fp4": "fp4_tflops"}  # fmt: skip
    rates = {kind: number(row, column) for kind, column in types.items()}
    cpu = number(row, "cpu_bandwidth_gb_per_s")
    cores, clock = number(row, "cpu_cores"), number(row, "cpu_ghz")
    a_cycle = number(row, "cpu_flops_per_cycle")
    flops = None if None in (cores, clock, a_cycle) else cores * clock * a_cycle * GB  # type: ignore
    return Hardware(
        name=row["name"],
        title=row["title"],
        kind=row["kind"],
        memory_bytes=max(sizes),
        memory_options_bytes=sizes,
        bytes_per_s=required(row, "bandwidth_gb_per_s") * GB,
        flop_per_s={kind: rate * 1e12 for kind, rate in rates.items() if rate is not None},
        sparse_factor=number(row, "sparse_factor") or 1.0,
        cpu_bytes_per_s=None if cpu is None else cpu * GB,
        sockets=int(required(row, "sockets")),
        cpu_cores=None if cores is None else int(cores),
        cpu_flop_per_s=flops,
        host=row["host"] or None,
        watts=number(row, "watts"),
        measured_watts=number(row, "measured_watts"),
        price_usd=_new_price(prices),
        prices=prices,
        confidence=row["confidence"],
        source=row["source"],
    )
