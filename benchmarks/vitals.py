"""Vitals: memory, descriptors and threads of a process and all that it started (Linux's /proc)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """``mib``: of memory that no file backs, swapped out or not."""

    mib: float
    descriptors: int
    threads: int


def family(pid: int) -> list[int]:
    """The process and all below it, oldest first."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it or its thread has just ended
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(word) for word in (task / "children").read_text().split()]
    return sorted(set(found))


def vitals(pid: int) -> Vitals:
    """``OSError`` where the process has gone."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    kib = int(fields["RssAnon"][0]) + int(fields["VmSwap"][0])
    return Vitals(
        mib=kib / 1024,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(fields["Threads"][0]),
    )


def slope(seconds: list[float], values: list[float]) -> float:
    """Per minute, of the straight line nearest to the values, three at least."""
    return float(np.polyfit(np.array(seconds) / 60, values, 1)[0])
