"""The machine's profile: everything that the engine's time on one machine is made of, measured."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bandweave import NUMERICS_VERSION, __version__, _native
from bandweave.formats.names import KV_FORMATS, PROBED_FORMATS
from bandweave.host import darwin
from bandweave.host.machine import available_memory_bytes, total_memory_bytes
from bandweave.host.processor import processor_name
from bandweave.planning.profile.interpolation import interpolate
from bandweave.planning.profile.profile import (
    MachineProfile,
    ProductRate,
    ReadRate,
    median_and_spread,
)
from bandweave.probing import operations, products
from bandweave.probing.attention import probe_attention, probe_first_attention
from bandweave.probing.products import Streamed
from bandweave.probing.steps import probe_step
from bandweave.probing.stopwatch import Setting, take_turns

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_LEAST_BYTES = 1 << 20
_AMID_BYTES = 64 << 20  # of weights that stand between operations
_MEMORY_PART = 8  # of the memory that is free the probe takes no more than 1/8 at a time

OnProgress = Callable[[int, int], None]  # parts done, and in all


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much is measured; the defaults take half a minute. ``streamed_bytes`` of weights at
    least, twice the largest cache where that is more (0: little, for tests)."""

    formats: tuple[str, ...] = PROBED_FORMATS
    kv_formats: tuple[str, ...] = KV_FORMATS
    rows: tuple[int, ...] = products.ROWS
    together: tuple[int, ...] = (1, 4, 8)
    rounds: int = 7
    streamed_bytes: int = 128 << 20
    quick: bool = False


def quick_scope(format: str, kv_format: str) -> Scope:
    """What a prediction for one format needs at least, in about two seconds."""
    return Scope(
        formats=(format,),
        kv_formats=(kv_format,),
        rows=(1, 8, 128),  # 8: about what an expert has of a prompt
        together=(1, 8),
        rounds=3,
        streamed_bytes=64 << 20,
        quick=True,
    )


def probe_machine(
    *,
    threads: int,
    setting: Setting,
    scope: Scope,
    on_progress: OnProgress = lambda done, total: None,
) -> MachineProfile:
    """Measures this machine with up to ``threads`` threads."""
    counts = thread_counts(threads)
    edges = tuple(sorted({1, threads}))
    streamed = _streamed_bytes(scope.streamed_bytes)
    parts = 4 + len(scope.formats) + len(scope.kv_formats)
    done = 0

    def passed() -> None:
        nonlocal done
        done += 1
        on_progress(done, parts)

    reads = _probe_reads(counts, streamed, scope.rounds, setting)
    passed()
    overheads = operations.probe_overheads(counts, 3 * scope.rounds, setting)
    by_threads = {one.threads: one.seconds_per_op for one in overheads}

    def op_seconds(number: int) -> float:
        return interpolate(by_threads, number)

    passed()
    amid = Streamed.make(min(streamed, _AMID_BYTES))
    elements = operations.probe_elements(scope.rounds, setting, op_seconds, amid)
    step = probe_step(scope.rounds, setting, amid)
    passed()
    rates: list[ProductRate] = []
    for format in scope.formats:
        found, quantising = products.probe_format(
            format,
            threads=edges if scope.quick else counts,
            rows=scope.rows,
            streamed_bytes=streamed,
            rounds=scope.rounds,
            setting=setting,
            op_seconds=op_seconds,
        )
        rates += found
        elements += quantising
        passed()
    attention = []
    for kv_format in scope.kv_formats:
        attention += probe_attention(
            kv_format,
            threads=edges,
            together=scope.together,
            cache_bytes=streamed // 2,
            rounds=scope.rounds,
            setting=setting,
            op_seconds=op_seconds,
        )
        passed()
    append = next(one for one in elements if one.kind == "kv_append")
    kv_format = scope.kv_formats[0]
    elements.append(
        probe_first_attention(kv_format, scope.rounds, setting, amid, append, op_seconds(1))
    )
    passed()
    return MachineProfile(
        processor=processor_name(),
        isa=setting.isa or _native.isa_variants()[0],
        cpus=threads,
        memory_bytes=total_memory_bytes() or 0,
        cache_bytes=_cache_bytes(),
        version=__version__,
        numerics_version=NUMERICS_VERSION,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        quick=scope.quick,
        reads=tuple(reads),
        products=tuple(rates),
        attention=tuple(attention),
        elements=tuple(elements),
        overheads=tuple(overheads),
        step=step,
    )


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 ... and the most."""
    counts = {most}
    number = 1
    while number < most:
        counts.add(number)
        number *= 2
    return tuple(sorted(counts))


def _probe_reads(
    counts: tuple[int, ...], size: int, rounds: int, setting: Setting
) -> list[ReadRate]:
    most = max(counts)
    cpus = list(setting.cpus[:most]) if len(setting.cpus) >= most else []
    memory = _native.PlainRead(most, size, cpus)
    turns = {number: partial(_seconds_per_byte, memory, number) for number in counts}
    found = []
    for number, values in take_turns(turns, rounds).items():
        seconds, spread = median_and_spread(values)
        found.append(ReadRate(threads=number, bytes_per_s=1 / seconds, spread=spread))
    return found


def _seconds_per_byte(memory: _native.PlainRead, threads: int) -> float:
    return 1 / memory.bytes_per_s(threads, 1)


def _streamed_bytes(wanted: int) -> int:
    """More than the caches hold, less than would hurt."""
    size = max(wanted, 2 * _cache_bytes()) if wanted else 0
    available = available_memory_bytes()
    if available is not None:
        size = min(size, available // _MEMORY_PART)
    return max(size, _LEAST_BYTES)


def _cache_bytes() -> int:
    """The largest cache of the first processor, of a fast one if there are two kinds; 0 where the
    system does not say."""
    largest = darwin.cache_bytes()
    for path in _CACHES.glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KMG])", path.read_text().strip())
        if match:
            scale = {"K": 10, "M": 20, "G": 30}[match[2]]
            largest = max(largest, int(match[1]) << scale)
    return largest
