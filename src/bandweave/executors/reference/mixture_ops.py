"""MixtureOps: the operations of a mixture of experts, in numpy.

Suffixes: T rows of the step, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.op_state import OpState, gated
from bandweave.executors.reference.products import linear, linear_grid, to_grid
from bandweave.executors.reference.routing import Router, route
from bandweave.formats.matrix import Matrix
from bandweave.formats.stored import stored
from bandweave.programs.program import Op, View

Rows = npt.NDArray[np.intp]


class MixtureOps(OpState):
    """The router and the experts' products; a method for each kind."""

    def _route(self, op: Op, step: Step) -> None:
        (logits,), (target,) = op.inputs, op.outputs
        numbers = {name: op.number(name) for name in op.attributes if name != "factor"}
        router = Router(**numbers, factor=op.real("factor"))
        self._set(target, route(self._get(logits), self._vector(op), router))

    def _expert_linear(self, op: Op, step: Step) -> None:
        (source, routes), (target,) = op.inputs, op.outputs
        x_TK, y_TN, bias = self._get(source), self._get(target), self._vector(op)
        for expert, own, rows, _, matrix in self._expert_rows(op, routes):
            first = expert * op.number("width")
            own_bias = None if bias is None else bias[first : first + own.stop - own.start]
            y_TN[rows, own] = stored(linear(x_TK[rows], matrix, own_bias))

    def _expert_mul(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_TN, made, at = self._get(source), [], 0
        for width in (*[op.number("width")] * op.number("top_k"), op.number("shared_width")):
            gate_TN, up_TN = x_TN[:, at : at + width], x_TN[:, at + width : at + 2 * width]
            made.append(gated(op, gate_TN, up_TN))
            at += 2 * width
        self._set(target, np.concatenate(made, axis=1))

    def _expert_grid(self, op: Op, step: Step) -> None:
        (source, routes), (target,) = op.inputs, op.outputs
        x_TK, bias = self._get(source), self._vector(op)
        total_TN = np.zeros((len(x_TK), target.width), np.int64)
        for expert, own, rows, weights_T, matrix in self._expert_rows(op, routes):
            total_TN[rows] += linear_grid(x_TK[rows, own], matrix, weights_T)
            if bias is not None:
                own_bias = bias[expert * target.width : (expert + 1) * target.width]
                total_TN[rows] += to_grid(own_bias * weights_T[:, None])
        self._grids[target.buffer] = total_TN

    def _expert_rows(self, op: Op, routes: View) -> Iterator[tuple[int, slice, Rows, F32, Matrix]]:
        """Expert, its columns among all chosen ones', rows that have it there, their weights, and
        its matrix on this node."""
        names, routes_T = op.names("matrices"), self._get(routes)
        slots, each, top_k = routes.width // 2, op.number("width"), op.number("top_k")
        for slot in range(slots):
            width = each if slot < top_k else op.number("shared_width")
            own = slice(slot * each, slot * each + width)
            for expert in np.unique(routes_T[:, slot]).astype(int).tolist():
                if (name := names[expert]) is None:
                    continue
                rows = np.flatnonzero(routes_T[:, slot] == expert)
                yield expert, own, rows, routes_T[rows, slots + slot], self._weights.matrices[name]
