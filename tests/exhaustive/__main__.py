"""The full product, or a sample of it, compared with one node: `python -m tests.exhaustive`.

Stops at nothing: what fails is counted and named at the end. Exit status 1 where any case differs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bandweave.engine.executor import StepError
from tests.exhaustive.cases import Case, all_cases, dimensions
from tests.exhaustive.runner import Answer, Runner

_SHOWN = 20  # differences that are named


@dataclass(kw_only=True)
class Tally:
    """Counts of one group of cases, or of several."""

    cases: int = 0
    equal: int = 0
    different: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.equal += other.equal
        self.different += other.different
        self.seconds += other.seconds
        self.complaints += other.complaints


def sampled(cases: Sequence[Case], fraction: float) -> list[Case]:
    """All cases of a fraction of the meshes, the same ones every time."""
    meshes = sorted(set(case.mesh for case in cases), key=str)
    count = max(1, round(fraction * len(meshes)))
    kept = set(random.Random(0).sample(meshes, count))
    return [case for case in cases if case.mesh in kept]


def grouped(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases with one answer together, in order."""
    groups: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    return list(groups.values())


def run_group(cases: Sequence[Case]) -> tuple[str, Tally]:
    """Compares every case of a group with one node; the model's name and what came out."""
    start = time.perf_counter()
    tally = Tally(cases=len(cases))
    with Runner() as runner:
        expected = runner.baseline(cases[0])
        for case in cases:
            complaint = _complaint(runner, case, expected)
            if complaint:
                tally.different += 1
                tally.complaints.append(f"{case}: {complaint}")
            else:
                tally.equal += 1
    tally.seconds = time.perf_counter() - start
    return cases[0].model, tally


def _complaint(runner: Runner, case: Case, expected: Answer) -> str:
    try:
        answer = runner.answer(case)
    except (StepError, ValueError, MemoryError) as error:
        return str(error)
    if answer == expected:
        return ""
    what = "logits" if answer.tokens == expected.tokens else "tokens"
    return f"{what} differ from those of one node"


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
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_group, groups)


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
    cases = [case for case in all_cases() if options.model in (None, case.model)]
    tallies = run_all(sampled(cases, options.sample), max(1, options.jobs))
    print_table(tallies)
    return 1 if any(tally.different for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
