"""Compares groups of cases with one node's answer and counts. A module of its own, so that the
processes of a pool can import it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bandweave.executors.executor import StepError
from tests.exhaustive.cases import Case
from tests.exhaustive.runner import Answer, Runner


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
