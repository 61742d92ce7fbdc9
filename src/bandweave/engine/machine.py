"""Machine: what the operating system says of this machine. Knows no models.

Works on Linux; elsewhere it says what it can and None for the rest.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def usable_cpus() -> tuple[int, ...]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_memory_bytes() -> int | None:
    """Memory that could be taken without swapping, inside the container's limit if there is one."""
    available = _meminfo("MemAvailable")
    limit = _cgroup_available()
    if limit is not None:
        return limit if available is None else min(limit, available)
    return available


def total_memory_bytes() -> int | None:
    """All memory of the machine."""
    return _meminfo("MemTotal")


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


def _cgroup_available() -> int | None:
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
