"""Hardware: machines and accelerators by name, as their makers or measurements describe them.

Knows what a data sheet says: memory, bandwidth, dense FLOP/s. What an engine gets out of it is
``efficiency``. A value that nobody published is None, never a guess.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from bandweave.planning.machines.tables import Row, number, required, rows

GB = 10**9

#: Kinds whose accelerator has memory of its own, beside that of the processor.
DISCRETE = ("geforce", "nvidia-pro", "nvidia-dc", "radeon", "instinct", "arc")
#: Kinds that compute on their processor alone.
PROCESSORS = ("cpu-server", "cpu-desktop", "sbc")


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
    price_usd: float | None = None
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
    """The hardware of that name; ``NAME-GIGABYTES`` picks one of its memory sizes.

    ``m3-ultra-512`` is an M3 Ultra with 512 GB; without a size it has the largest. ``ValueError``
    with near names where there is none.
    """
    catalogue = _catalogue()
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    key = re.sub(r"-?gb$", "", key)
    if key in catalogue:
        return catalogue[key]
    base, _, size = key.rpartition("-")
    if base in catalogue and size.isdigit():
        found = catalogue[base]
        asked = int(size) * GB
        if asked in found.memory_options_bytes:
            return dataclasses.replace(
                found,
                name=key,
                title=f"{found.title}, {size} GB",
                memory_bytes=asked,
                price_usd=_price(_row(base), asked),
            )
        sizes = ", ".join(str(option // GB) for option in found.memory_options_bytes)
        raise ValueError(f"{base} does not come with {size} GB of memory; it comes with {sizes}")
    near = difflib.get_close_matches(key, catalogue, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"no hardware is called {name!r}{hint}")


def _row(name: str) -> Row:
    return next(row for row in rows("hardware") if row["name"] == name)


def _price(row: Row, memory_bytes: int) -> float | None:
    """The price, unless the table says that it is that of another memory size."""
    of_size = re.search(r"\((\d+) GB\)", row["price_usd"])
    if of_size is not None and int(of_size[1]) * GB != memory_bytes:
        return None
    return number(row, "price_usd")


@lru_cache(maxsize=1)
def _catalogue() -> Mapping[str, Hardware]:
    return {row["name"]: _hardware(row) for row in rows("hardware")}


def _hardware(row: Row) -> Hardware:
    sizes = tuple(int(float(text) * GB) for text in row["memory_gb"].split())
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
        price_usd=_price(row, max(sizes)),
        confidence=row["confidence"],
        source=row["source"],
    )
