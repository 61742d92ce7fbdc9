"""A long run of the fuzzers, on all processors: ``python -m tests.fuzz``.

Prints how many inputs of each kind ended in which way. Exit status 1 where one must not have.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.fuzzer import KINDS, Report, build_fuzzer, run_fuzzer, write_seeds

_TOGETHER = 2000  # inputs of one process: what grows is found, and what is lost is little
_GROUPS = ("accepted", "refused", "error", "right", "thrown", "done")


def run_kind(fuzzer: Path, kind: str, dumps: Sequence[Path], args: argparse.Namespace) -> bool:
    """Runs all inputs of a kind; whether all ended as they must."""
    start = time.perf_counter()
    outcomes: Counter[str] = Counter()
    peak, sound = 0, True

    def run(first: int) -> Report | AssertionError:
        inputs = min(_TOGETHER, args.inputs - first)
        try:
            return run_fuzzer(fuzzer, kind, inputs=inputs, seed=args.seed, first=first, dumps=dumps)
        except AssertionError as error:
            return error

    with ThreadPoolExecutor(args.jobs) as pool:
        for found in pool.map(run, range(0, args.inputs, _TOGETHER)):
            if isinstance(found, AssertionError):
                print(found, file=sys.stderr, flush=True)
                sound = False
                continue
            outcomes.update(found.outcomes)
            peak = max(peak, found.peak_rss_bytes)
            seconds = time.perf_counter() - start
            print(f"\r{kind}: {outcomes.total()} inputs, {seconds:.0f} s ", end="",
                  file=sys.stderr, flush=True)  # fmt: skip
    print(file=sys.stderr)
    seconds = time.perf_counter() - start
    print(f"{kind}: {outcomes.total()} inputs in {seconds:.0f} s, {peak / 1e6:.0f} MB at most")
    for group in _GROUPS:
        found = {what: n for what, n in outcomes.items() if what.partition(":")[0] == group}
        found |= {what: n for what, n in outcomes.items() if what.startswith(f"{group}, ")}
        if found:
            print(f"  {sum(found.values()):8} {group}")
        for what, count in sorted(found.items(), key=lambda item: -item[1]):
            print(f"  {count:16} {what}")
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=KINDS, choices=[*KINDS, []])
    parser.add_argument("--inputs", type=int, default=100_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    fuzzer = build_fuzzer(quick=False)
    with tempfile.TemporaryDirectory() as folder:
        dumps = write_seeds(Path(folder))
        sound = [run_kind(fuzzer, kind, dumps, args) for kind in args.kinds or KINDS]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
