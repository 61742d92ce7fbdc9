"""What is left of a machine's memory: what hardware, drivers and systems keep, and how to get more.

Knows kinds of hardware and what their systems do; knows no models. Figures are of machines that do
nothing else: a desktop with a browser has less.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from bandweave.planning.machines.hardware import GIB, Hardware
from bandweave.planning.machines.tables import required, rows

MIB = 1 << 20
#: What CUDA, HIP and Level Zero programs lose of a card to their own context and code.
_CONTEXT_BYTES = 350 * MIB
#: A driver's part of a card: cudaMemGetInfo gives 23.7 of 24 GiB of an idle RTX 3090.
_DRIVER_PART = 64
_LEAST_REPORTED = 0.9  # of what was sold
_SYSTEM_BYTES = 2 * GIB  # of a machine with 16 GiB or more
_SYSTEM_PART = 16  # for what grows with memory: page tables, caches, other programs
#: A monitor, its windows and a browser on the card.
_DISPLAY_BYTES = GIB
#: Kinds whose accelerator gets less than all that is left until somebody asks for more.
_ASKED = ("apple", "apu")


def installed_bytes(hardware: Hardware) -> int:
    """What a driver or the system says is there: ECC and firmware keep some of what was sold."""
    sold, reported = hardware.memory_bytes, _reported().get(hardware.name, 0)
    # Not of a machine whose memory a user has changed.
    return reported if _LEAST_REPORTED * sold <= reported <= sold else sold


def usable_bytes(hardware: Hardware, *, on_processor: bool) -> int:
    """The most that a model may have, with limits raised where they can be."""
    there = installed_bytes(hardware)
    if hardware.is_card and not on_processor:
        return there - there // _DRIVER_PART - _CONTEXT_BYTES
    return there - there // _SYSTEM_PART - min(_SYSTEM_BYTES, there // 8)


def granted_bytes(hardware: Hardware) -> int:
    """What the accelerator gets without being asked: less on Macs and on processors with graphics,
    until somebody raises it."""
    there, usable = installed_bytes(hardware), usable_bytes(hardware, on_processor=False)
    if hardware.kind == "apple":
        # Metal's recommendedMaxWorkingSetSize.
        return min(usable, there * 3 // 4 if there > 36 * GIB else there * 2 // 3)
    return min(usable, there // 2) if hardware.kind == "apu" else usable


def memory_remark(hardware: Hardware, needed_bytes: float) -> str:
    """What must be done for so much of the memory to be had, as a sentence; empty where nothing."""
    if hardware.kind in _ASKED and needed_bytes > granted_bytes(hardware):
        granted = granted_bytes(hardware) / GIB
        sold = installed_bytes(hardware) / GIB
        limit = usable_bytes(hardware, on_processor=False) // MIB
        if hardware.kind == "apple":
            return (
                f"macOS gives the GPU of {hardware.name} {granted:.0f} of {sold:.0f} GiB; "
                f"`sudo sysctl iogpu.wired_limit_mb={limit}` raises that until the next start."
            )
        return (
            f"Linux gives the graphics of {hardware.name} {granted:.0f} of {sold:.0f} GiB; the "
            f"kernel's option ttm.pages_limit={limit * MIB // 4096} raises that."
        )
    spare = usable_bytes(hardware, on_processor=False) - needed_bytes
    if hardware.kind in ("geforce", "radeon", "arc") and spare < _DISPLAY_BYTES:
        return (
            f"{hardware.name} is full to {max(spare, 0) / GIB:.1f} GiB: a display on it takes up "
            "to 1 GiB, so let the processor's graphics or another card drive it."
        )
    return ""


@lru_cache(maxsize=1)
def _reported() -> Mapping[str, int]:
    """By name, where it differs from what is sold."""
    return {
        row["name"]: int(required(row, "reported_mib")) * MIB for row in rows("reported_memory")
    }
