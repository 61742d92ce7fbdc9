"""Darwin: what macOS says of a machine, asked of its own commands. Empty on other systems.

The texts are read by pure functions, so that they are tested where there is no Mac. Not yet run on
one.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Mapping

# Where there are two kinds of cores, level 0 is that of the fast ones (Apple silicon only).
_FAST_CORES = "hw.perflevel0.physicalcpu"
_FAST_CACHE = "hw.perflevel0.l2cachesize"
_CACHES = (_FAST_CACHE, "hw.l2cachesize", "hw.l3cachesize")
_MEMORY = "hw.memsize"
_PROCESSOR = "machdep.cpu.brand_string"
# What could be taken without swapping. Speculative pages are read ahead, and are given back;
# vm_stat has taken them off the free ones.
_AVAILABLE = ("Pages free", "Pages inactive", "Pages speculative")
_SECONDS = 5  # a command that takes longer says nothing


def parse_sysctl(text: str) -> dict[str, str]:
    """``sysctl NAME ...`` prints a line ``name: value`` for each name that it knows."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def parse_available_bytes(text: str) -> int | None:
    """What ``vm_stat`` prints, as bytes that could be taken without swapping; None where a number
    is missing."""
    size = re.search(r"page size of (\d+) bytes", text)
    pages = [re.search(rf"^{name}:\s+(\d+)\.", text, re.MULTILINE) for name in _AVAILABLE]
    if size is None:
        return None
    total = 0
    for number in pages:
        if number is None:
            return None
        total += int(number[1])
    return total * int(size[1])


def fast_cores(values: Mapping[str, str] | None = None) -> int | None:
    """The fast cores. A thread on one of the others would keep all threads waiting."""
    return _number(_FAST_CORES, values)


def total_memory_bytes(values: Mapping[str, str] | None = None) -> int | None:
    return _number(_MEMORY, values)


def cache_bytes(values: Mapping[str, str] | None = None) -> int:
    """The largest cache of the fast cores that macOS speaks of; 0 where there is none."""
    return max(_number(name, values) or 0 for name in _CACHES)


def processor_name(values: Mapping[str, str] | None = None) -> str | None:
    return (_sysctl() if values is None else values).get(_PROCESSOR) or None


def available_memory_bytes() -> int | None:
    return parse_available_bytes(_output("/usr/bin/vm_stat"))


def _number(name: str, values: Mapping[str, str] | None) -> int | None:
    text = (_sysctl() if values is None else values).get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


@functools.cache  # none of it changes while a process runs
def _sysctl() -> Mapping[str, str]:
    names = (_FAST_CORES, *_CACHES, _MEMORY, _PROCESSOR)
    return parse_sysctl(_output("/usr/sbin/sysctl", *names))


def _output(*command: str) -> str:
    if sys.platform != "darwin":
        return ""
    try:  # sysctl fails for a name that it lacks, and prints the others
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
