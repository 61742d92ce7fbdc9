"""Which trials: every case with every blow that fits it, in an order and at moments of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from tests.interrupts.blows import BLOWS
from tests.interrupts.cases import CASES
from tests.interrupts.trial import SECONDS, Trial, fits


def story(
    seed: int, trials: int, wanted: Sequence[str] = (), *, seconds: float = SECONDS, pace: float = 1
) -> Iterator[Trial]:
    """So many trials. ``wanted``: names of cases, or ``case:blow``; all of them where it is empty.
    ``pace``: by which moments are later than on a quick machine. ``ValueError`` for a name that is
    none."""
    pairs = [(case, blow) for case in CASES for blow in BLOWS if fits(case, blow)]
    if wanted:
        names = {case.name for case, _ in pairs} | {f"{case.name}:{blow.name}" for case, blow in
                                                    pairs}  # fmt: skip
        if unknown := set(wanted) - names:
            raise ValueError(f"no such cases: {', '.join(sorted(unknown))}")
        pairs = [(case, blow) for case, blow in pairs if case.name in wanted
                 or f"{case.name}:{blow.name}" in wanted]  # fmt: skip
    dice = random.Random(seed)
    dice.shuffle(pairs)
    for case, blow in islice(cycle(pairs), trials):
        moment = dice.uniform(0.05, case.seconds) * pace
        yield Trial(case=case, blow=blow, moment=moment, seconds=seconds)
