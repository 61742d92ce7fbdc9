"""Machine: what the operating system says of this machine. Knows no models.

Knows Linux and, through ``darwin``, macOS; elsewhere it says what it can and None for the rest.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from bandweave.host import control_groups, darwin
from bandweave.host.control_groups import MemoryLimit, cpu_quota

HOST = "host"  # the group of memory that all processes of a machine share
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_NUMA = Path("/sys/devices/system/node")


def allowed_cpus() -> tuple[int, ...]:
    """The processors that this process may run on, whatever part of their time is its own."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cpus() -> tuple[int, ...]:
    """As many of the allowed processors as a container's CPU quota pays for, or as there are fast
    ones: threads beyond them would be stopped again and again or be slow, and the others wait for
    them."""
    allowed, quota = allowed_cpus(), cpu_quota()
    paid = allowed if quota is None else allowed[: max(1, int(quota))]
    return paid[: darwin.fast_cores()]


def numa_nodes(root: Path | None = None) -> tuple[tuple[int, ...], ...]:
    """The allowed processors by memory node, of nodes that have any; one node of all of them where
    the system says nothing."""
    allowed, nodes = set(allowed_cpus()), []
    folders = (root or _NUMA).glob("node[0-9]*")
    for folder in sorted(folders, key=lambda path: int(path.name.removeprefix("node"))):
        text = _read(folder / "cpulist")
        cpus = tuple(cpu for cpu in _cpu_list(text or "") if cpu in allowed)
        if cpus:
            nodes.append(cpus)
    return tuple(nodes) or (tuple(sorted(allowed)),)


def available_memory_bytes() -> int | None:
    """Memory that could be taken without swapping, inside the container's limits if there are
    any."""
    return min((limit.available for limit in memory_limits()), default=None)


def memory_limits() -> tuple[MemoryLimit, ...]:
    """What there is of the memory of this machine, and inside each control group that limits it."""
    limits = control_groups.memory_limits()
    available = _meminfo("MemAvailable")
    if available is None:
        available = darwin.available_memory_bytes()
    if available is not None:
        limits.append(MemoryLimit(group=HOST, available=available))
    return tuple(limits)


def total_memory_bytes() -> int | None:
    """All memory of the machine."""
    total = _meminfo("MemTotal")
    return darwin.total_memory_bytes() if total is None else total


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident so far."""
    if _STATUS.exists():
        match = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _meminfo(name: str) -> int | None:
    if not _MEMINFO.exists():
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _cpu_list(text: str) -> list[int]:
    """``0-3,8`` as numbers."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
