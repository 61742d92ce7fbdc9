"""Measures what this machine's memory gives, in a process of its own.

So that the memory read counts on nobody's account, and a measurement that hangs can be ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from bandweave.host.machine import available_memory_bytes, usable_cpus

_TOTAL_BYTES = 1 << 30
_THREAD_BYTES = 64 << 20  # of every thread at least: more than a cache holds
_SECONDS = 60.0
_PROBE = """\
import json, sys
path, threads, size, rounds, cpus = json.loads(sys.argv[1])
sys.path[:] = path
from bandweave import _native
most = max(threads)
memory = _native.PlainRead(most, size, cpus[:most] if most <= len(cpus) else [])
print(json.dumps([memory.bytes_per_s(n, rounds) for n in threads]))
"""


def read_bandwidth(
    threads: Sequence[int], *, total_bytes: int = _TOTAL_BYTES, rounds: int = 5
) -> list[float]:
    """Bytes per second that so many threads read together, for each number of threads, over
    ``rounds`` reads. Reads ``total_bytes``, or less where memory is short."""
    size = max(total_bytes, _THREAD_BYTES * max(threads))
    available = available_memory_bytes()
    if available is not None:
        size = min(size, available // 4)
    if size < max(threads) << 20:
        raise MemoryError("too little memory is free to measure its bandwidth; end something else")
    question = json.dumps([sys.path, list(threads), size, rounds, list(usable_cpus())])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise OSError(f"the memory's bandwidth could not be measured: {error}") from error
    return json.loads(done.stdout)
