"""A pipeline over an executor that computes one step at a time, which answers late."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Executor, Step
from bandweave.executors.pipeline import Outcome

F32 = npt.NDArray[np.float32]


class DelayedPipeline:
    """A ``Pipeline`` of ``depth``. What its last stage would compute is computed in ``finish``:
    whoever gives a page or a state away before the step has ended is found out."""

    def __init__(self, executor: Executor, depth: int) -> None:
        self.executor, self.depth = executor, depth
        self.most = 0  # steps that were under way at a time
        self._steps: deque[tuple[Step, F32, bool]] = deque()

    @property
    def under_way(self) -> int:
        return len(self._steps)

    def start(self, step: Step, embeddings: F32, *, best_only: bool) -> None:
        assert len(self._steps) < self.depth
        self._steps.append((step, embeddings, best_only))
        self.most = max(self.most, len(self._steps))

    def finish(self) -> Outcome:
        step, embeddings, best_only = self._steps.popleft()
        try:
            return (self.executor.best if best_only else self.executor.run)(step, embeddings)
        except Exception:
            self._steps.clear()
            raise
