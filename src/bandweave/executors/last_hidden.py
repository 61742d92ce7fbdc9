"""LastHidden: what the head reads: the normed hidden states of the rows that asked for logits.

The executor keeps the rows before the last norm; a product may take the norm into itself and keep
nothing of it. So the norm is computed again, here, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bandweave.executors.reference import math
from bandweave.programs.program import Op, Program

F32 = npt.NDArray[np.float32]
Floats = Callable[[int], F32]  # a buffer of the executor's, by its number

_NORMS = {"rms_norm": math.rms_norm, "layer_norm": math.layer_norm}


class LastHidden:
    """Of one node. ``ValueError`` where another has the last layer, or the rows are not kept."""

    def __init__(
        self, program: Program, vectors: Mapping[str, F32], floats: Floats, wants: str
    ) -> None:
        """``wants``: what needs it, for the error."""
        self._floats = floats
        self._norm, self._buffer = _last_norm(program, wants)
        assert self._norm.vector is not None
        self._weight = vectors[self._norm.vector]

    def read(self, count: int) -> F32:
        """``[count, hidden_size]``: of the first ``count`` rows of the last step that asked for
        logits."""
        x_LN = self._floats(self._buffer)[:count, : self._norm.inputs[0].width]
        return _NORMS[self._norm.kind](x_LN, self._weight, self._norm.real("eps"))


def _last_norm(program: Program, wants: str) -> tuple[Op, int]:
    for taking, norm in zip(program.ops, program.ops[1:], strict=False):
        if taking.kind == "take_rows" and norm.kind in _NORMS and norm.inputs == taking.outputs:
            return norm, list(program.buffers).index(norm.inputs[0].buffer)
    raise ValueError(
        f"{wants} need the last layer on the first node, without a layer that drafts: leave out "
        "--stages and --speculate mtp"
    )
