"""ReferenceExecutor: runs one node's program in numpy, one readable function an operation.

The oracle of the native executor: docs/numerics.md to the byte. ``attention_ops`` and
``mixture_ops`` have the operations of attention and of mixtures. Knows programs, weights and an
exchange; knows no files and no sockets.

Suffixes: T rows of the step, L rows that want logits, N outputs, H heads, D elements of a head.
"""

from __future__ import annotations

import numpy as np

from bandweave.executors.executor import Step, StepError
from bandweave.executors.pipeline import OneAtATime
from bandweave.executors.reference import math
from bandweave.executors.reference.attention_ops import AttentionOps
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.mixture_ops import MixtureOps
from bandweave.executors.reference.op_state import gated
from bandweave.executors.reference.products import NumbersError, add_grid, linear, linear_grid
from bandweave.programs.program import Op


class ReferenceExecutor(AttentionOps, MixtureOps):
    """One node of ``program.num_nodes``; nodes other than 0 call ``follow`` in a loop."""

    _progress = 0  # operations

    def run(self, step: Step, embeddings: F32) -> F32:
        """Node 0: the logits ``[L, vocab_size]`` of the rows that want them; see ``Executor``."""
        assert self.program.node == 0
        self._begin(step)
        self._exchange.open(step)
        self._run_ops(step, embeddings)
        return self._floats["logits"].copy()

    def best(self, step: Step, embeddings: F32) -> list[int]:
        """Node 0: the best token of each row that wants logits; see ``Executor``."""
        logits = self.run(step, embeddings)
        finite = np.isfinite(logits).all(axis=1)
        return np.where(finite, np.argmax(logits, axis=1), -1).tolist()

    def pipeline(self, depth: int) -> OneAtATime:
        """Node 0: one step at a time, whatever ``depth`` allows."""
        return OneAtATime(self)

    def follow(self, wake_descriptor: int = -1) -> str:
        """Other nodes: runs node 0's next step: ``"ran"``, or ``"left"`` when node 0 has ended.
        Nothing wakes it meanwhile."""
        assert self.program.node != 0
        step = self._exchange.next_step()
        if step is None:
            return "left"
        self._begin(step)
        self._run_ops(step, None)
        return "ran"

    def close(self) -> None:
        """Node 0: ends the followers."""
        if self.program.node == 0:
            self._exchange.end()

    def floats(self, buffer: int) -> F32:
        """A buffer of the program, by its number, as the last step left it."""
        return self._floats[list(self.program.buffers)[buffer]]

    @property
    def progress(self) -> int:
        """Goes up with every operation."""
        return self._progress

    @property
    def fetch_ahead(self) -> int:
        return 0

    def bill(self, *, decode: bool) -> dict[str, float]:
        """Nothing is accounted for: this executor is for its bytes."""
        return {}

    def _begin(self, step: Step) -> None:
        """``ValueError`` for a step that the states do not allow; then nothing has changed."""
        if self._book is not None and step.sources is None:
            self._turns = self._book.turns(step)

    def _run_ops(self, step: Step, embeddings: F32 | None) -> None:
        self._allocate(step)
        drafts = step.sources is not None
        for op in self.program.draft_ops if drafts else self.program.main_ops:
            self._progress += 1
            try:
                if op.kind == "embed":
                    self._embed(op, embeddings)
                else:
                    getattr(self, f"_{op.kind}")(op, step)
            except NumbersError as error:
                reason = f"{op.name}: {error}"
                self._exchange.fail(reason)
                raise StepError(reason) from error

    # --- operations ---

    def _embed(self, op: Op, embeddings: F32 | None) -> None:
        (x,) = op.outputs
        self._set(x, self._exchange.embed(op, embeddings))

    def _recv(self, op: Op, step: Step) -> None:
        (x,) = op.outputs
        self._set(x, self._exchange.recv(op))

    def _send(self, op: Op, step: Step) -> None:
        (x,) = op.inputs
        self._exchange.send(op, self._get(x))

    def _rms_norm(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        weight = self._vector(op)
        assert weight is not None
        x_THD = self._heads(source, op.number("dim"))
        self._set(target, math.rms_norm(x_THD, weight, op.real("eps")))

    def _layer_norm(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        weight = self._vector(op)
        assert weight is not None
        x_THD = self._heads(source, op.number("dim"))
        self._set(target, math.layer_norm(x_THD, weight, op.real("eps")))

    def _square_sums(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        sums_TH = math.lane_sum_squares(self._heads(source, op.number("dim")))
        bits_TH = sums_TH.view(np.int32).astype(np.int64) & 0x7FFFFFFF
        grid_TN = self._grids[target.buffer]
        grid_TN[:, op.number("begin") : op.number("end")] = 0
        skip, first = op.number("skip"), op.number("first")
        grid_TN[:, first + skip : first + op.number("heads")] = bits_TH[:, skip:]

    def _all_reduce_bits(self, op: Op, step: Step) -> None:
        (grid,) = op.inputs
        self._grids[grid.buffer] = self._exchange.all_reduce(op, self._grids[grid.buffer])

    def _norm_by_sums(self, op: Op, step: Step) -> None:
        (source, grid), (target,) = op.inputs, op.outputs
        begin, end = op.number("begin"), op.number("end")
        bits_TH = self._grids[grid.buffer][:, begin:end]
        sum_T = math.lane_sum(np.ascontiguousarray(bits_TH, dtype=np.int32).view(np.float32))
        weight = self._vector(op)
        assert weight is not None
        count = (end - begin) * op.number("dim")
        x_TN = self._get(source)
        self._set(target, math.norm_by_sum(x_TN, sum_T, count, weight, op.real("eps")))

    def _linear(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert op.weight is not None
        matrix = self._weights.matrices[op.weight]
        self._set(target, linear(self._get(source), matrix, self._vector(op)))

    def _gated_mul(self, op: Op, step: Step) -> None:
        (gate, up), (target,) = op.inputs, op.outputs
        self._set(target, gated(op, self._get(gate), self._get(up)))

    def _linear_grid(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert op.weight is not None
        matrix = self._weights.matrices[op.weight]
        self._grids[target.buffer] = linear_grid(self._get(source), matrix)

    def _all_reduce_add(self, op: Op, step: Step) -> None:
        (grid, residual), (target,) = op.inputs, op.outputs
        total_TN = self._exchange.all_reduce(op, self._grids[grid.buffer])
        self._set(target, add_grid(self._get(residual), total_TN, self._vector(op)))

    def _all_reduce(self, op: Op, step: Step) -> None:
        (grid,), (target,) = op.inputs, op.outputs
        total_TN = self._exchange.all_reduce(op, self._grids[grid.buffer])
        zeros_TN = np.zeros(total_TN.shape, dtype=np.float32)
        self._set(target, add_grid(zeros_TN, total_TN, self._vector(op)))

    def _add(self, op: Op, step: Step) -> None:
        (x, other), (target,) = op.inputs, op.outputs
        with np.errstate(over="ignore", invalid="ignore"):
            more: F32 = self._get(other) * np.float32(op.real("factor"))
            self._set(target, self._get(x) + more)

    def _scale(self, op: Op, step: Step) -> None:
        (x,), (target,) = op.inputs, op.outputs
        with np.errstate(over="ignore", invalid="ignore"):
            y: F32 = self._get(x) * np.float32(op.real("factor"))
            self._set(target, y)

    def _soft_cap(self, op: Op, step: Step) -> None:
        (x,), (target,) = op.inputs, op.outputs
        self._set(target, math.soft_cap(self._get(x), op.real("cap")))

    def _take_rows(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        self._set(target, self._get(source)[step.wants_logits])

    def _pick_rows(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert step.sources is not None
        own = slice(source.offset, source.offset + source.width)
        self._set(target, self._left[source.buffer][step.sources, own])

    def _gather_logits(self, op: Op, step: Step) -> None:
        own_LN = self._get(op.inputs[0]) if op.inputs else None
        logits_LN = self._exchange.gather_logits(op, own_LN)
        if logits_LN is not None:
            (target,) = op.outputs
            self._set(target, logits_LN)
