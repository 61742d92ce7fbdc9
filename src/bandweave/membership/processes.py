"""Processes that were started in the background: known again by their number and their start, so
that no other one is ever ended in their place. Knows Linux and macOS."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOOK_SECONDS = 0.05


def started_at(pid: int) -> str:
    """A text that no other process with this number has: when it started. Empty where no process
    that runs has the number; zombies do not run."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = _BOOT_ID.read_text().strip()
        except (OSError, ValueError):
            return ""
        return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5.0, check=False)
        state, _, start = done.stdout.strip().partition(" ")
        return "" if not state or state.startswith("Z") else start.strip()
    return ""


def runs(pid: int, started: str) -> bool:
    """Whether the very process runs that started then."""
    return bool(started) and started_at(pid) == started


def end(pid: int, started: str, *, patience: float = 5.0) -> bool:
    """Ends the process that started then, and no other: asks it, and after ``patience`` seconds
    forces it. Whether it has ended, or had before."""
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    try:
        # Looked at once the descriptor holds the number: it cannot become another's in between.
        if not runs(pid, started):
            return True
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
            with contextlib.suppress(ProcessLookupError):
                if descriptor is not None:
                    signal.pidfd_send_signal(descriptor, number)
                else:
                    os.kill(pid, number)
            if _ended(pid, started, descriptor, seconds):
                return True
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _ended(pid: int, started: str, descriptor: int | None, seconds: float) -> bool:
    if descriptor is not None:
        return bool(select.select([descriptor], [], [], seconds)[0])
    deadline = time.monotonic() + seconds
    while runs(pid, started):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
