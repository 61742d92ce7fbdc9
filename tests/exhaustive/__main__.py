"""The full product, or a sample of it, compared with one node: `python -m tests.exhaustive`.

Stops at nothing: what fails is counted and named at the end. Exit status 1 where any case differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.exhaustive.cases import Case, all_cases, dimensions, family_cases
from tests.exhaustive.compare import Tally, grouped, run_group, sampled

_SHOWN = 20  # differences that are named


def run_all(cases: Sequence[Case], jobs: int) -> dict[str, Tally]:
    """Tallies by model; a progress line on standard error."""
    start = time.perf_counter()
    tallies: dict[str, Tally] = {}
    total = Tally()
    for model, tally in _results(grouped(cases), jobs):
        tallies.setdefault(model, Tally()).add(tally)
        total.add(tally)
        spent = time.perf_counter() - start
        left = spent / total.cases * (len(cases) - total.cases)
        print(
            f"\r{total.cases} of {len(cases)} cases, {total.different} different, "
            f"{spent:.0f} s, {left:.0f} s to go ",
            end="", file=sys.stderr, flush=True,
        )  # fmt: skip
    print(file=sys.stderr)
    return tallies


def _results(groups: list[list[Case]], jobs: int) -> Iterator[tuple[str, Tally]]:
    if jobs == 1:
        yield from map(run_group, groups)
        return
    # Unlike multiprocessing's pool it says so when a process dies.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for task in as_completed([pool.submit(run_group, group) for group in groups]):
            yield task.result()


def print_table(tallies: dict[str, Tally]) -> None:
    print(f"{'model':16} {'cases':>7} {'equal':>7} {'different':>9} {'seconds':>8}")
    total = Tally()
    for model, tally in [*tallies.items(), ("all", total)]:
        if tally is not total:
            total.add(tally)
        print(
            f"{model:16} {tally.cases:7} {tally.equal:7} {tally.different:9} {tally.seconds:8.0f}"
        )
    for complaint in total.complaints[:_SHOWN]:
        print(complaint)
    if len(total.complaints) > _SHOWN:
        print(f"and {len(total.complaints) - _SHOWN} more")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where all cases are equal, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__)
    parser.add_argument("--model", choices=dimensions()["model"], help="one model only")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument(
        "--sample", type=float, default=1.0, metavar="FRACTION", help="of the nodes' set-ups"
    )
    options = parser.parse_args(arguments)
    cases = [
        case for case in (*all_cases(), *family_cases(40)) if options.model in (None, case.model)
    ]
    tallies = run_all(sampled(cases, options.sample), max(1, options.jobs))
    print_table(tallies)
    return 1 if any(tally.different for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
