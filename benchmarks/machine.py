"""What a measurement was made on: the machine, the versions, the date. Knows no figures."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contestant import ROOT

_PEERS = ("llama-cpp-python", "torch", "transformers")
_SECONDS = 120.0
_STAT = Path("/proc/stat")
QUIET = 0.05  # the share of the processors that others may use


def describe() -> dict[str, Any]:
    """``bandweave doctor``'s findings, the peers' versions, the commit, the date (UTC)."""
    doctor = subprocess.run(
        [sys.executable, "-m", "bandweave", "doctor", "--json"],
        capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=ROOT,
    )  # fmt: skip
    if not doctor.stdout:
        raise RuntimeError(f"`bandweave doctor` says: {doctor.stderr.strip()}")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "peers": {name: _version(name) for name in _PEERS},
        "doctor": json.loads(doctor.stdout),
    }


def busy_share(seconds: float = 2.0) -> float:
    """The share of the processors' time that others take at the moment; 0 where unknown."""
    if not _STAT.exists():
        return 0.0
    idle_before, all_before = _times()
    time.sleep(seconds)
    idle, total = _times()
    return 1.0 - (idle - idle_before) / max(1, total - all_before)


def _times() -> tuple[int, int]:
    """Ticks of all processors since the start: idle ones, and all."""
    ticks = list(map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9]))
    return ticks[3] + ticks[4], sum(ticks)


def sentences(machine: dict[str, Any]) -> str:
    """The description as a paragraph."""
    doctor, peers = machine["doctor"], machine["peers"]
    cpus, reads = len(doctor["cpus"]), doctor.get("read_bandwidth_gb_s") or {}
    each = ", ".join(f"{count} thread{'s' * (count != '1')} {gbs:.0f}"
                     for count, gbs in reads.items())  # fmt: skip
    others = ", ".join(f"{name} {version}" for name, version in peers.items() if version)
    memory = doctor["memory_total_bytes"]
    parts = [
        f"{machine['date']}, bandweave {doctor['bandweave']}"
        + (f" ({machine['commit']})" if machine["commit"] else "")
        + f", numerics version {doctor['numerics_version']}.",
        f"{doctor['processor']}, {cpus} processors, {doctor['isa']} kernels"
        + (f", {memory / 1e9:.0f} GB of memory" if memory else "")
        + (f"; plain reads in GB/s: {each}" if each else "")
        + ".",
        f"{doctor['system']}, Python {doctor['python']}" + (f"; {others}." if others else "."),
    ]
    return " ".join(parts)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The short commit, with a plus where files differ from it; empty outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            capture_output=True, text=True, check=True, timeout=_SECONDS, cwd=ROOT,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
