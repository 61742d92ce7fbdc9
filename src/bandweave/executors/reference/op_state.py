"""OpState: what a node's operations read and write: buffers, weights, caches, states, an exchange.

Knows no kinds of operations.
"""

from __future__ import annotations

import numpy as np

from bandweave.executors.exchange import Alone, StepExchange
from bandweave.executors.executor import Step
from bandweave.executors.reference import math
from bandweave.executors.reference.attention import LayerCache
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.products import Grid
from bandweave.executors.reference.states import LayerState, StateBook, Turn
from bandweave.executors.reference.weights import ReferenceWeights
from bandweave.formats.stored import stored
from bandweave.programs.operations import GATES
from bandweave.programs.program import CacheShape, Op, Program, View


class OpState:
    """Of one node of ``program.num_nodes``. ``self._turns`` are those of the step at hand."""

    def __init__(
        self,
        program: Program,
        weights: ReferenceWeights,
        *,
        num_pages: int,
        num_states: int = 16,
        max_drafted: int = 16,
        kv_dtype: str = "f16",
        exchange: StepExchange | None = None,
    ) -> None:
        """``kv_dtype`` is ``"f16"`` or ``"f32"``; one node alone needs no ``exchange``."""
        if exchange is None and program.num_nodes > 1:
            raise ValueError(f"{program.num_nodes} nodes need an exchange")
        self.program = program
        self._weights = weights
        self._exchange: StepExchange = exchange or Alone()
        self._frequencies = [
            (np.array(table.frequencies, dtype=np.float64), table.factor)
            for table in program.frequencies
        ]
        self._caches = [
            LayerCache(
                num_pages=num_pages,
                kv_heads=shape.kv_heads,
                head_dim=_one_dim(shape),
                kv_dtype=kv_dtype,
                latent=shape.v_dim if shape.latent else 0,
            )
            for shape in program.caches
        ]
        self._book = StateBook(num_states, max_drafted) if program.states else None
        self._states = [LayerState(shape, num_states, max_drafted) for shape in program.states]
        self._turns: list[Turn] = []
        self._floats: dict[str, F32] = {}
        self._left: dict[str, F32] = {}  # of the last step
        self._grids: dict[str, Grid] = {}

    @property
    def work_bytes(self) -> int:
        """Of the buffers of the last step."""
        arrays = (*self._floats.values(), *self._grids.values())
        return sum(array.nbytes for array in arrays)

    def _allocate(self, step: Step) -> None:
        """Fresh buffers for the step's rows, of NaN, so that a read before a write shows."""
        self._left = self._floats
        self._floats = {}
        for buffer in self.program.buffers.values():
            rows = len(step.tokens) if buffer.rows == "step" else int(step.wants_logits.sum())
            if buffer.dtype == "grid":
                self._grids[buffer.name] = np.zeros((rows, buffer.width), dtype=np.int64)
            else:
                self._floats[buffer.name] = np.full((rows, buffer.width), np.nan, dtype=np.float32)

    def _get(self, view: View) -> F32:
        return self._floats[view.buffer][:, view.offset : view.offset + view.width]

    def _set(self, view: View, values: F32) -> None:
        """Stores ``[T, N]`` or ``[T, H, D]``."""
        flat = stored(values.reshape(len(values), view.width))
        self._floats[view.buffer][:, view.offset : view.offset + view.width] = flat

    def _heads(self, view: View, dim: int) -> F32:
        values = self._get(view)
        return values.reshape(len(values), view.width // dim, dim)

    def _vector(self, op: Op) -> F32 | None:
        return None if op.vector is None else self._weights.vectors[op.vector]


def gated(op: Op, gate_TN: F32, up_TN: F32) -> F32:
    """As the operation's attributes say."""
    function = GATES[op.number("function")]
    limit, alpha = op.real("limit"), op.real("alpha")
    return math.gated_mul(gate_TN, up_TN, function, limit=limit, alpha=alpha)


def _one_dim(shape: CacheShape) -> int:
    if shape.k_dim != shape.v_dim and not shape.latent:
        raise ValueError(
            f"keys of {shape.k_dim} elements and values of {shape.v_dim} do not share a cache here"
        )
    return shape.k_dim
