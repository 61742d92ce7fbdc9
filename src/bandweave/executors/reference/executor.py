"""ReferenceExecutor: runs one node's program in numpy, one readable function an operation.

The oracle of the native executor: docs/numerics.md to the byte. Knows programs, weights and an
exchange; knows no files and no sockets.

Suffixes: T rows of the step, L rows that want logits, N outputs, H heads, D elements of a head.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bandweave.executors.exchange import Alone, StepExchange
from bandweave.executors.executor import Step, StepError
from bandweave.executors.pipeline import OneAtATime
from bandweave.executors.reference import delta, math
from bandweave.executors.reference.attention import LayerCache, attention
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.products import (
    Grid,
    NumbersError,
    add_grid,
    linear,
    linear_grid,
    to_grid,
)
from bandweave.executors.reference.routing import Router, route
from bandweave.executors.reference.states import LayerState, StateBook, Turn
from bandweave.executors.reference.weights import ReferenceWeights
from bandweave.formats.matrix import Matrix
from bandweave.formats.stored import stored
from bandweave.programs.operations import GATES
from bandweave.programs.program import CacheShape, Op, Program, View

Rows = npt.NDArray[np.intp]


class ReferenceExecutor:
    """One node of ``program.num_nodes``; nodes other than 0 call ``follow`` in a loop."""

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
        self._progress = 0
        self._floats: dict[str, F32] = {}
        self._left: dict[str, F32] = {}  # of the last step
        self._grids: dict[str, Grid] = {}

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
    def work_bytes(self) -> int:
        """Of the buffers of the last step."""
        arrays = (*self._floats.values(), *self._grids.values())
        return sum(array.nbytes for array in arrays)

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

    def _rope(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_THD = self._heads(source, op.number("dim"))
        frequencies, factor = self._frequencies[op.number("table")]
        start = op.number("offset")
        stop = start + op.number("rotary")
        turned = math.rope(
            x_THD[..., start:stop],
            step.positions,
            frequencies,
            factor=factor,
            interleaved=bool(op.number("interleaved")),
        )
        y_THD = self._heads(target, op.number("to_dim"))  # a copy where heads are not contiguous
        first = op.number("to_offset")
        y_THD[..., first : first + op.number("rotary")] = turned
        self._set(target, y_THD)

    def _kv_append(self, op: Op, step: Step) -> None:
        k, v = op.inputs
        cache = self._caches[op.number("cache")]
        cache.append(step, self._heads(k, op.number("k_dim")), self._heads(v, op.number("v_dim")))

    def _attention(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        y_THD = attention(
            step,
            self._heads(source, op.number("k_dim")),
            self._caches[op.number("cache")],
            kv_map=op.numbers("kv_map"),
            window=op.number("window"),
            scale=op.real("scale"),
            cap=op.real("cap"),
            sinks_H=self._vector(op),
        )
        self._set(target, y_THD)

    def _gated_mul(self, op: Op, step: Step) -> None:
        (gate, up), (target,) = op.inputs, op.outputs
        self._set(target, _gate(op, self._get(gate), self._get(up)))

    def _short_conv(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        weights = self._vector(op)
        assert weights is not None
        state = self._states[op.number("state")]
        x_TN, kernel = self._get(source), op.number("kernel")
        self._set(target, delta.short_conv(x_TN, weights, kernel, state, self._turns))

    def _l2_norm(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_THD = self._heads(source, op.number("dim"))
        self._set(target, delta.l2_norm(x_THD, op.real("eps"), op.real("factor")))

    def _delta_gates(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        vector = self._vector(op)
        assert vector is not None
        self._set(target, delta.delta_gates(self._get(source), vector, op.number("heads")))

    def _delta_rule(self, op: Op, step: Step) -> None:
        (source, gates), (target,) = op.inputs, op.outputs
        sizes = delta.Heads(*(op.number(name) for name in delta.Heads._fields))
        state = self._states[op.number("state")]
        x_TN, gates_TN = self._get(source), self._get(gates)
        self._set(target, delta.delta_rule(x_TN, gates_TN, sizes, state, self._turns))

    def _head_linear(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        names = op.names("matrices")
        x_THD = self._heads(source, source.width // len(names))
        y_THD = self._heads(target, target.width // len(names))
        for head, name in enumerate(names):
            assert name is not None
            matrix = self._weights.matrices[name]
            outputs, inputs = matrix.shape
            y_THD[:, head, :outputs] = linear(x_THD[:, head, :inputs], matrix, None)
        self._set(target, y_THD)

    def _latent_append(self, op: Op, step: Step) -> None:
        (k,) = op.inputs
        self._caches[op.number("cache")].append(step, self._heads(k, op.number("k_dim")))

    def _latent_attention(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        y_THD = attention(
            step,
            self._heads(source, op.number("k_dim")),
            self._caches[op.number("cache")],
            kv_map=(0,) * op.number("heads"),
            window=0,
            scale=op.real("scale"),
        )
        self._set(target, y_THD)

    def _linear_grid(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert op.weight is not None
        matrix = self._weights.matrices[op.weight]
        self._grids[target.buffer] = linear_grid(self._get(source), matrix)

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
            made.append(_gate(op, gate_TN, up_TN))
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


def _one_dim(shape: CacheShape) -> int:
    if shape.k_dim != shape.v_dim and not shape.latent:
        raise ValueError(
            f"keys of {shape.k_dim} elements and values of {shape.v_dim} do not share a cache here"
        )
    return shape.k_dim


def _gate(op: Op, gate_TN: F32, up_TN: F32) -> F32:
    function = GATES[op.number("function")]
    limit, alpha = op.real("limit"), op.real("alpha")
    return math.gated_mul(gate_TN, up_TN, function, limit=limit, alpha=alpha)
