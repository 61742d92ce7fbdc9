"""LastHidden: what the head reads: the normed hidden states of rows of the last step, on node 0.

Where node 0 has the last layer, its executor keeps the rows before the last norm; a product may
take the norm into itself and keep nothing of it. So the norm is computed again, here, to the same
bits. Where a layer drafts, the normed rows are kept for it. Where another stage has the last layer,
a step of their own brings them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import PAGE_SIZE, Executor, Step
from bandweave.executors.reference import math
from bandweave.models.graph import HIDDEN
from bandweave.programs.lowering_last_hidden import GIVEN
from bandweave.programs.program import Op, Program

F32 = npt.NDArray[np.float32]
Floats = Callable[[int], F32]  # a buffer of the executor's, by its number

_NORMS = {"rms_norm": math.rms_norm, "layer_norm": math.layer_norm}


class LastHidden:
    """Of node 0. ``ValueError`` where nothing brings the rows here."""

    def __init__(
        self,
        program: Program,
        vectors: Mapping[str, F32],
        executor: Executor,
        floats: Floats,
        wants: str,
    ) -> None:
        """``wants``: what needs it, for the error."""
        self._program, self._vectors = program, vectors
        self._executor, self._floats = executor, floats
        self._norm = _last_norm(program)
        if self._norm is None and not {HIDDEN, GIVEN} & program.buffers.keys():
            raise ValueError(
                f"{wants} need the last layer on the first node where a layer drafts: leave out "
                "--stages or --speculate mtp"
            )

    def read(self, step: Step, rows: Sequence[int]) -> F32:
        """``[R, hidden_size]``: of these rows of the last step, which was ``step`` and in which
        they asked for logits. ``StepError`` where they cannot be fetched."""
        if self._norm is not None:
            norm = self._norm
            assert norm.vector is not None
            asked = np.cumsum(step.wants_logits)[list(rows)] - 1  # their places among such rows
            x_RN = self._buffer(norm.inputs[0].buffer)[asked, : norm.inputs[0].width]
            return _NORMS[norm.kind](x_RN, self._vectors[norm.vector], norm.real("eps"))
        width = self._program.hidden_size
        if HIDDEN in self._program.buffers:
            return self._buffer(HIDDEN)[list(rows), :width].copy()
        given = np.empty((len(rows), width), np.float32)
        for start in range(0, len(rows), PAGE_SIZE):
            some = rows[start : start + PAGE_SIZE]
            self._executor.best(_fetching(some), np.zeros((len(some), width), np.float32))
            given[start : start + len(some)] = self._buffer(GIVEN)[: len(some), :width]
        return given

    def _buffer(self, name: str) -> F32:
        return self._floats(list(self._program.buffers).index(name))


def _fetching(rows: Sequence[int]) -> Step:
    """A step that fetches rows of the one before. It writes no keys, so that any page will do for
    its positions, of which one page has as many as rows are fetched at a time."""
    count = len(rows)
    return Step(
        tokens=np.zeros(count, np.int32),
        slots=np.zeros(count, np.int32),
        positions=np.arange(count, dtype=np.int32),
        wants_logits=np.zeros(count, np.bool_),
        page_tables=np.zeros((1, 1), np.int32),
        sources=np.array(rows, np.int32),
    )


def _last_norm(program: Program) -> Op | None:
    """The norm of the rows that ask for logits, where this node has it."""
    for taking, norm in zip(program.main_ops, program.main_ops[1:], strict=False):
        if taking.kind == "take_rows" and norm.kind in _NORMS and norm.inputs == taking.outputs:
            return norm
    return None
