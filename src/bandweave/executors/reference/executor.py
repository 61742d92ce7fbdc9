"""ReferenceExecutor: runs one node's program in numpy, one readable function an operation.

The oracle of the native executor: docs/numerics.md to the byte. Knows programs, weights and an
exchange; knows no files and no sockets.

Suffixes: T rows of the step, L rows that want logits, N outputs, H heads, D elements of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bandweave.executors.executor import Step, StepError
from bandweave.executors.reference import math
from bandweave.executors.reference.attention import LayerCache, attention
from bandweave.executors.reference.exchange import ThreadExchange
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.products import (
    Grid,
    NumbersError,
    add_grid,
    linear,
    linear_grid,
)
from bandweave.executors.reference.weights import ReferenceWeights
from bandweave.executors.reference.wire import round_grid, round_rows
from bandweave.formats.stored import stored
from bandweave.programs.program import Op, Program, View


class ReferenceExecutor:
    """One node of ``program.num_nodes``; nodes other than 0 call ``follow`` in a loop."""

    def __init__(
        self,
        program: Program,
        weights: ReferenceWeights,
        *,
        num_pages: int,
        kv_dtype: str = "f16",
        wire: str = "exact",
        exchange: ThreadExchange | None = None,
    ) -> None:
        """``kv_dtype`` is ``"f16"`` or ``"f32"``; ``wire`` is ``"exact"``, ``"bf16"`` or ``"q8"``;
        one node alone needs no ``exchange``."""
        if exchange is None and program.num_nodes > 1:
            raise ValueError(f"{program.num_nodes} nodes need an exchange")
        self.program = program
        self._weights = weights
        self._exchange = exchange
        self._wire = wire
        self._inv_freq = np.array(program.inv_freq, dtype=np.float64)
        shape = program.cache
        self._caches = [
            LayerCache(
                num_pages=num_pages,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                kv_dtype=kv_dtype,
            )
            for _ in range(shape.layers)
        ]
        self._floats: dict[str, F32] = {}
        self._grids: dict[str, Grid] = {}

    def run(self, step: Step, embeddings: F32) -> F32:
        """Node 0: the logits ``[L, vocab_size]`` of the rows that want them; see ``Executor``."""
        assert self.program.node == 0
        if self._exchange is not None:
            self._exchange.send(range(1, self.program.num_nodes), "step", step)
        self._run_ops(step, embeddings)
        return self._floats["logits"].copy()

    def best(self, step: Step, embeddings: F32) -> list[int]:
        """Node 0: the best token of each row that wants logits; see ``Executor``."""
        logits = self.run(step, embeddings)
        finite = np.isfinite(logits).all(axis=1)
        return np.where(finite, np.argmax(logits, axis=1), -1).tolist()

    def follow(self) -> bool:
        """Other nodes: runs node 0's next step; False when node 0 has ended."""
        assert self._exchange is not None and self.program.node != 0
        step = self._exchange.receive_step()
        if step is None:
            return False
        self._run_ops(step, None)
        return True

    def close(self) -> None:
        """Node 0: ends the followers."""
        if self._exchange is not None and self.program.node == 0:
            self._exchange.send(range(1, self.program.num_nodes), "step", None)

    def _run_ops(self, step: Step, embeddings: F32 | None) -> None:
        self._allocate(step)
        for op in self.program.ops:
            try:
                if op.kind == "embed":
                    self._embed(op, embeddings)
                else:
                    _OPS[op.kind](self, op, step)
            except NumbersError as error:
                reason = f"{op.name}: {error}"
                if self._exchange is not None:
                    self._exchange.fail(reason)
                raise StepError(reason) from error

    def _allocate(self, step: Step) -> None:
        """Fresh buffers for the step's rows, of NaN, so that a read before a write shows."""
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
        if embeddings is None:
            assert self._exchange is not None
            received = self._exchange.receive(0, op.name)
            assert received.dtype == np.float32
            embeddings = received.astype(np.float32, copy=False)
        elif self._exchange is not None:
            self._exchange.send(_nodes(op, "group"), op.name, embeddings)
        self._set(x, embeddings)

    def _recv(self, op: Op, step: Step) -> None:
        (x,), (peer,) = op.outputs, _nodes(op, "peers")
        assert self._exchange is not None
        self._set(x, self._exchange.receive(peer, "stage").astype(np.float32, copy=False))

    def _send(self, op: Op, step: Step) -> None:
        (x,) = op.inputs
        assert self._exchange is not None
        self._exchange.send(_nodes(op, "peers"), "stage", round_rows(self._get(x), self._wire))

    def _rms_norm(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        weight, eps = self._vector(op), op.attributes["eps"]
        assert weight is not None and isinstance(eps, float)
        x_THD = self._heads(source, _integer(op, "dim"))
        self._set(target, math.rms_norm(x_THD, weight, eps))

    def _linear(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert op.weight is not None
        matrix = self._weights.matrices[op.weight]
        self._set(target, linear(self._get(source), matrix, self._vector(op)))

    def _rope(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_THD = self._heads(source, _integer(op, "dim"))
        self._set(target, math.rope(x_THD, step.positions, self._inv_freq))

    def _kv_append(self, op: Op, step: Step) -> None:
        k, v = op.inputs
        dim = _integer(op, "dim")
        cache = self._caches[_integer(op, "cache")]
        cache.append(step, self._heads(k, dim), self._heads(v, dim))

    def _attention(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        y_THD = attention(
            step,
            self._heads(source, _integer(op, "dim")),
            self._caches[_integer(op, "cache")],
            kv_map=_nodes(op, "kv_map"),
            window=_integer(op, "window"),
        )
        self._set(target, y_THD)

    def _silu_mul(self, op: Op, step: Step) -> None:
        (gate, up), (target,) = op.inputs, op.outputs
        self._set(target, math.silu_mul(self._get(gate), self._get(up)))

    def _linear_grid(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        assert op.weight is not None
        matrix = self._weights.matrices[op.weight]
        self._grids[target.buffer] = linear_grid(self._get(source), matrix)

    def _all_reduce_add(self, op: Op, step: Step) -> None:
        (grid, residual), (target,) = op.inputs, op.outputs
        node, contributors = self.program.node, _nodes(op, "contributors")
        own_TN = self._grids[grid.buffer]
        if len(_nodes(op, "group")) > 1:
            own_TN = round_grid(own_TN, self._wire)
        if self._exchange is not None and node in contributors:
            self._exchange.send(_nodes(op, "group"), op.name, own_TN)
        total_TN = np.zeros_like(own_TN)
        for source in contributors:
            if source == node:
                total_TN += own_TN
            else:
                assert self._exchange is not None
                total_TN += self._exchange.receive(source, op.name).astype(np.int64, copy=False)
        self._set(target, add_grid(self._get(residual), total_TN, self._vector(op)))

    def _take_rows(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        self._set(target, self._get(source)[step.wants_logits])

    def _gather_logits(self, op: Op, step: Step) -> None:
        owners = op.attributes["owners"]
        assert isinstance(owners, tuple)
        if self.program.node != 0:
            assert self._exchange is not None
            self._exchange.send((0,), op.name, self._get(op.inputs[0]))
            return
        (target,) = op.outputs
        logits_LN = self._get(target)
        for owner in owners:
            assert isinstance(owner, tuple)
            node, start, stop = owner
            if node == 0:
                logits_LN[:, start:stop] = self._get(op.inputs[0])
            else:
                assert self._exchange is not None
                logits_LN[:, start:stop] = self._exchange.receive(node, op.name)


_OPS: Mapping[str, Callable[[ReferenceExecutor, Op, Step], None]] = {
    "recv": ReferenceExecutor._recv,
    "send": ReferenceExecutor._send,
    "rms_norm": ReferenceExecutor._rms_norm,
    "linear": ReferenceExecutor._linear,
    "rope": ReferenceExecutor._rope,
    "kv_append": ReferenceExecutor._kv_append,
    "attention": ReferenceExecutor._attention,
    "silu_mul": ReferenceExecutor._silu_mul,
    "linear_grid": ReferenceExecutor._linear_grid,
    "all_reduce_add": ReferenceExecutor._all_reduce_add,
    "take_rows": ReferenceExecutor._take_rows,
    "gather_logits": ReferenceExecutor._gather_logits,
}


def _integer(op: Op, name: str) -> int:
    value = op.attributes[name]
    assert isinstance(value, int), (op.name, name)
    return value


def _nodes(op: Op, name: str) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    value = op.attributes[name]
    assert isinstance(value, tuple)
    return tuple(entry for entry in value if isinstance(entry, int))
