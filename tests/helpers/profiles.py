"""Profiles of machines that do not exist, with round figures."""

from __future__ import annotations

import json
from pathlib import Path

from bandweave import NUMERICS_VERSION, __version__
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.link_profile import LinkProfile, LinkTime
from bandweave.planning.profile.profile import (
    AttentionRate,
    ElementRate,
    MachineProfile,
    Overhead,
    ProductRate,
    Profile,
    ReadRate,
    StepCost,
)

RECORDED = Path(__file__).resolve().parents[1] / "data" / "profile.json"
ELEMENTS = ("rms_norm", "gated_mul", "rope", "kv_append", "all_reduce_add", "quantise_q4",
            "quantise_q8")  # fmt: skip


def make_machine(
    *,
    bytes_per_s: float = 20e9,
    flop_per_s: float = 1e12,
    element: float = 1e-10,
    overhead: float = 1e-7,
    attention: float = 1e-10,
    step: float = 3e-5,
    cpus: int = 2,
    together_gain: float = 1.5,
    processor: str = "made up",
) -> MachineProfile:
    """``bytes_per_s`` by one thread; all together read ``together_gain`` times as much."""
    per_byte = {"q4": 32 / 18, "q8": 32 / 34, "bf16": 0.5, "f32": 0.25}
    products = []
    for format, weights in per_byte.items():
        for threads in (1, cpus):
            for rows in (1, 8, 128):
                read = bytes_per_s * (1 if threads == 1 else together_gain)
                compute = flop_per_s * threads / (2 * rows * weights)
                for on_grid in (False, True):
                    products.append(
                        ProductRate(
                            format=format,
                            on_grid=on_grid,
                            cached=False,
                            rows=rows,
                            threads=threads,
                            seconds_per_byte=max(1 / read, 1 / compute),
                            spread=0.01,
                        )
                    )
    return MachineProfile(
        processor=processor,
        isa="avx512",
        cpus=cpus,
        memory_bytes=16 << 30,
        cache_bytes=0,
        version=__version__,
        numerics_version=NUMERICS_VERSION,
        measured_at="2026-01-01T00:00:00+00:00",
        quick=False,
        reads=tuple(
            ReadRate(
                threads=t, bytes_per_s=bytes_per_s * (1 if t == 1 else together_gain), spread=0.01
            )
            for t in (1, cpus)
        ),
        products=tuple(products),
        attention=tuple(
            AttentionRate(
                kv_format=kv, together=group, streamed=streamed, threads=t,
                seconds=attention, spread=0.01,
            )
            for kv in ("f16", "f32") for group in (1, 8) for streamed in (True, False)
            for t in (1, cpus)
        ),
        elements=tuple(
            ElementRate(kind=kind, seconds=element, first_seconds=0.0, spread=0.01)
            for kind in ELEMENTS
        ),
        overheads=tuple(
            Overhead(threads=t, seconds_per_op=overhead, spread=0.01) for t in (1, cpus)
        ),
        step=StepCost(seconds_per_step=step, seconds_per_row=1e-5, seconds_per_logit=1e-8),
    )  # fmt: skip


def make_link(*, latency: float = 20e-6, bytes_per_s: float = 1e9) -> LinkProfile:
    """A link that takes ``latency + bytes / rate``."""
    return LinkProfile(
        transport="tcp",
        times=tuple(
            LinkTime(
                payload_bytes=size,
                wire_seconds=latency / 4,
                wait_seconds=latency * 3 / 4 + size / bytes_per_s,
                other_seconds=1e-6,
                spread=0.01,
            )
            for size in (64, 4096, 65536, 1 << 20, 1 << 24)
        ),
    )


def make_nodes(*machines: MachineProfile, threads: int = 1) -> list[EngineNode]:
    """Nodes on hosts of their own."""
    return [
        EngineNode(machine=machine, threads=threads, host=f"host {index}")
        for index, machine in enumerate(machines)
    ]


def recorded_profile() -> Profile:
    """One that a real machine once gave."""
    return Profile.from_json(json.loads(RECORDED.read_text(encoding="utf-8")))
