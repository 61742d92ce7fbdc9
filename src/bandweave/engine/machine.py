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
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_NUMA = Path("/sys/devices/system/node")


def allowed_cpus() -> tuple[int, ...]:
    """The processors that this process may run on, whatever part of their time is its own."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cpus() -> tuple[int, ...]:
    """As many of the allowed processors as a container's CPU quota pays for: threads beyond them
    would be stopped again and again, and the others wait for them."""
    allowed, quota = allowed_cpus(), cpu_quota()
    return allowed if quota is None else allowed[: max(1, int(quota))]


def cpu_quota(root: Path | None = None, own: Path | None = None) -> float | None:
    """Processors' worth of time that the control groups of this process (v2 or v1) grant; None for
    no limit. ``root`` is where they are mounted, ``own`` the file that names this process's."""
    root, own = root or _CGROUPS, own or _OWN_CGROUPS
    limits = [limit for folder in _cgroups("cpu", root, own) for limit in _quotas(folder)]
    return min(limits, default=None)


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
    """Memory that could be taken without swapping, inside the container's limit if there is one."""
    available = _meminfo("MemAvailable")
    limit = cgroup_memory_bytes()
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


def cgroup_memory_bytes(root: Path | None = None, own: Path | None = None) -> int | None:
    """What the control groups of this process (v2 or v1) leave of their memory; None for no limit.
    ``root`` and ``own`` as for ``cpu_quota``."""
    left = []
    for folder in _cgroups("memory", root or _CGROUPS, own or _OWN_CGROUPS):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, taken = _read(folder / most), _read(folder / used)
            if limit and taken and limit.strip().isdigit() and taken.strip().isdigit():
                left.append(max(0, int(limit) - int(taken)))
    return min(left, default=None)


def _cgroups(controller: str, root: Path, own: Path) -> list[Path]:
    """The folders that may limit this process: its group and those around it."""
    folders = []
    for line in (_read(own) or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # v2
            mount = root
        elif controller in controllers.split(","):
            mounts = (root / controllers, root / controller)
            mount = next((folder for folder in mounts if folder.is_dir()), root)
        else:
            continue
        # A container often sees its own group as the root, whatever the file says.
        group = mount / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return folders


def _quotas(folder: Path) -> list[float]:
    limits = []
    if words := (_read(folder / "cpu.max") or "").split():
        limits.append((words[0], words[1] if len(words) > 1 else "100000"))
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota and period:
        limits.append((quota.strip(), period.strip()))
    return [
        int(quota) / int(period)
        for quota, period in limits
        if quota.isdigit() and period.isdigit() and int(period) > 0
    ]


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
