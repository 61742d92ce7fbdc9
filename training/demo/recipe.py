"""How a network is trained: its schedule and lessons. Knows no tensors and no optimiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import chats
from mixture_model import MixtureModel, MixtureShape
from model import PLAIN, Q4, Q4_WEIGHTS, DemoModel, Precision, Shape

Network = DemoModel | MixtureModel


@dataclass(frozen=True)
class Recipe:
    """``make`` a network of a vocabulary; ``rates``: points (pool, learning rate) joined by
    straight lines; ``quantised_from``: the pool from which on the roundings of the 4-bit format
    are imitated; ``further_from``: the one from which on a layer that looks one token further
    learns, too, in every second step."""

    make: Callable[[int], Network]
    rates: Sequence[tuple[float, float]]
    lessons: Sequence[chats.Lesson]
    quantised_from: int
    further_from: int = 0

    @property
    def pools(self) -> int:
        return int(self.rates[-1][0])

    def learning_rate(self, pool: float) -> float:
        """The straight line between the two points of the table around this pool."""
        for (start, low), (end, high) in itertools.pairwise(self.rates):
            if pool <= end:
                return low + (high - low) * (pool - start) / (end - start)
        return self.rates[-1][1]

    def precision_for(self, random: Random, pool: float) -> Precision:
        """Late in the training most steps are rounded, some stay plain: both uses must work."""
        if pool < self.quantised_from:
            return PLAIN
        return random.choices((PLAIN, Q4_WEIGHTS, Q4), (0.25, 0.65, 0.10))[0]


RECIPES = {
    "llama": Recipe(
        make=lambda vocabulary: DemoModel(Shape(vocab_size=vocabulary)),
        # Up, level, and down in two strokes, the second from where the last lessons bring longer
        # answers.
        rates=(
            (0.0, 2e-6),
            (1.8, 2e-3),
            (52.25, 2e-3),
            (90.0, 0.73e-3),
            (92.0, 1e-3),
            (100.0, 0.86e-3),
            (115.0, 0.41e-3),
            (132.0, 2e-5),
        ),
        lessons=chats.LESSONS,
        quantised_from=57,
    ),
    "mixture": Recipe(
        make=lambda vocabulary: MixtureModel(MixtureShape(vocab_size=vocabulary)),
        rates=(
            (0.0, 2e-6),
            (1.2, 2.5e-3),
            (22.0, 2.5e-3),
            (26.0, 1.6e-3),
            (28.0, 0.8e-3),
            (30.0, 2e-5),
        ),
        lessons=chats.MIXED_LESSONS,
        quantised_from=30,
        further_from=12,
    ),
}
