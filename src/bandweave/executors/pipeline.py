"""Pipeline: node 0's steps, of which several may be under way where a model runs in stages.

While a later stage computes a step, node 0 computes its own part of the next one. Steps end in the
order in which they began. Knows no sequences: whoever starts steps sees to it that none needs what
an earlier one that has not ended yet is to give.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Executor, Step

F32 = npt.NDArray[np.float32]
Outcome = F32 | list[int]


class Pipeline(Protocol):
    """Steps of one executor. While any is under way the executor runs none besides."""

    @property
    def depth(self) -> int:
        """How many steps may be under way."""
        ...

    @property
    def under_way(self) -> int:
        """How many are."""
        ...

    def start(self, step: Step, embeddings: F32, *, best_only: bool) -> None:
        """Begins a step; returns where node 0 has nothing more to do for it. ``StepError`` where it
        fails; none is under way then."""
        ...

    def finish(self) -> Outcome:
        """Ends the step that began first: what ``Executor.run`` gives for it, or ``best`` where
        ``best_only`` was said. ``StepError`` where it has failed; none is under way then."""
        ...


class OneAtATime:
    """A ``Pipeline`` over any executor: a step is computed before ``start`` returns."""

    depth = 1

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._outcomes: deque[Outcome] = deque()

    @property
    def under_way(self) -> int:
        return len(self._outcomes)

    def start(self, step: Step, embeddings: F32, *, best_only: bool) -> None:
        assert not self._outcomes, "a step is under way"
        compute = self._executor.best if best_only else self._executor.run
        self._outcomes.append(compute(step, embeddings))

    def finish(self) -> Outcome:
        return self._outcomes.popleft()
