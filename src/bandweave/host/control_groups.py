"""Control groups: what containers leave a process of processors and memory, of Linux v1 and v2.

Knows their files; knows no machine beside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
# Files that hold a limit and what is used of it: v2, v2 where processes are slowed down, v1.
_MEMORY_FILES = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# Of what is used the system gives back what it can read again (pages of files, used lately or not)
# and what it keeps for speed alone; v1 counts those below a group under other names.
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
_RECLAIMABLE_V1 = ("total_inactive_file", "total_active_file")
_LOCKED_UP = ("file_dirty", "file_writeback", "total_dirty", "total_writeback")


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """``available`` bytes of the memory that all processes of a ``group`` share; processes of one
    host that name one group share it."""

    group: str
    available: int


def cpu_quota(root: Path | None = None, own: Path | None = None) -> float | None:
    """Processors' worth of time that the control groups of this process (v2 or v1) grant; None for
    no limit. ``root`` is where they are mounted, ``own`` the file that names this process's."""
    limits = [limit for folder in _cgroups("cpu", root, own) for limit in _quotas(folder)]
    return min(limits, default=None)


def memory_limits(root: Path | None = None, own: Path | None = None) -> list[MemoryLimit]:
    """What each control group of this process that has a limit leaves of it: the limit less what is
    used and cannot be reclaimed. ``root`` and ``own`` as for ``cpu_quota``."""
    found = []
    for folder in _cgroups("memory", root, own):
        left = [left for pair in _MEMORY_FILES if (left := _left(folder, *pair)) is not None]
        if left:
            found.append(MemoryLimit(group=_identity(folder), available=min(left)))
    return found


def _left(folder: Path, most: str, used: str) -> int | None:
    limit, taken = _read(folder / most), _read(folder / used)
    if not (limit and taken and limit.strip().isdigit() and taken.strip().isdigit()):
        return None
    kept = max(0, int(taken) - _reclaimable(folder))
    return max(0, int(limit) - kept)


def _reclaimable(folder: Path) -> int:
    """Bytes in use that the system takes back when memory is short."""
    found = re.findall(r"^(\w+) (\d+)$", _read(folder / "memory.stat") or "", re.MULTILINE)
    counts = {name: int(value) for name, value in found}
    names = _RECLAIMABLE_V1 if "total_inactive_file" in counts else _RECLAIMABLE
    together = sum(counts.get(name, 0) for name in names)
    return max(0, together - sum(counts.get(name, 0) for name in _LOCKED_UP))


def _identity(folder: Path) -> str:
    """A group as the kernel numbers it, whatever path a container sees it at."""
    try:
        status = folder.stat()
    except OSError:
        return str(folder)
    return f"{status.st_dev}:{status.st_ino}"


def _cgroups(controller: str, root: Path | None, own: Path | None) -> list[Path]:
    """The folders that may limit this process: its group and those around it."""
    root, own = root or _CGROUPS, own or _OWN_CGROUPS
    folders = []
    for line in (_read(own) or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # v2
            # Where v1 is mounted too, v2 has a folder of its own.
            mount = root / "unified" if (root / "unified").is_dir() else root
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


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None
