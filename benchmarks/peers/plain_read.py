"""A plain read of this machine's memory by T threads, as bytes per second, over many reads.

The yardstick inside every round: neighbours on the machine change what its memory gives.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from bandweave import _native
from benchmarks.peers.protocol import Work, serve

_BYTES = 512 << 20
_REPEATS = 15  # both ways: about a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    threads = parser.parse_args().threads
    cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []

    def make() -> tuple[dict[str, Any], Callable[[Work], dict[str, Any]]]:
        memory = _native.PlainRead(threads, _BYTES, cpus if len(cpus) == threads else [])

        def measure(work: Work) -> dict[str, Any]:
            return {"read_bytes_per_s": memory.bytes_per_s(threads, _REPEATS)}

        return {"engine": "plain read"}, measure

    serve(make)


if __name__ == "__main__":
    main()
