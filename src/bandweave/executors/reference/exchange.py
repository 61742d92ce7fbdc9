"""Links between reference nodes in one process: queues, one for each pair of threads.

Knows operations' exchanges and arrays; knows no arithmetic but the sum of grids. A node that fails
fails all, with its reason.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step, StepError
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.products import Grid
from bandweave.executors.reference.wire import round_grid, round_rows
from bandweave.programs.program import Op

Array = npt.NDArray[np.generic]
_Payload = Array | Step | None
_Message = tuple[int, _Payload]

_STEP = -1  # in the place of an operation's tag
_POLL_S = 0.05  # how soon a waiting node notices that another has failed


class ThreadMesh:
    """What N nodes share; ``exchange(node)`` is one node's end."""

    def __init__(self, num_nodes: int, *, timeout_s: float = 60.0) -> None:
        self.num_nodes = num_nodes
        self.timeout_s = timeout_s
        self.queues: dict[tuple[int, int], queue.SimpleQueue[_Message]] = {
            (source, target): queue.SimpleQueue()
            for source in range(num_nodes)
            for target in range(num_nodes)
            if source != target
        }
        self.failed = threading.Event()
        self.reason = ""

    def exchange(self, node: int, wire: str = "exact") -> ThreadExchange:
        """``wire``: ``"exact"``, ``"bf16"`` or ``"q8"``, the same on all nodes."""
        return ThreadExchange(self, node, wire)

    def fail(self, reason: str) -> None:
        """Makes every wait, on every node, raise ``StepError(reason)``."""
        if not self.failed.is_set():
            self.reason = reason
            self.failed.set()


class ThreadExchange:
    """One node's end of a ``ThreadMesh``, a ``StepExchange``. Messages carry the operation's tag,
    which must match."""

    def __init__(self, mesh: ThreadMesh, node: int, wire: str) -> None:
        self._mesh, self._node, self._wire = mesh, node, wire

    # --- steps ---

    def open(self, step: Step) -> None:
        self._tell(step)

    def next_step(self) -> Step | None:
        message = self._take(0, "steps", _STEP, bounded=False)
        assert message is None or isinstance(message, Step)
        return message

    def end(self) -> None:
        self._tell(None)

    def fail(self, reason: str) -> None:
        self._mesh.fail(reason)

    def _tell(self, step: Step | None) -> None:
        for node in range(1, self._mesh.num_nodes):
            self._mesh.queues[self._node, node].put((_STEP, step))

    # --- operations ---

    def embed(self, op: Op, rows_TN: F32 | None) -> F32:
        if rows_TN is None:
            return self._receive(op, 0).astype(np.float32, copy=False)
        self._send(op, op.numbers("group"), rows_TN)
        return rows_TN

    def send(self, op: Op, rows_TN: F32) -> None:
        self._send(op, op.numbers("peers"), round_rows(rows_TN, self._wire))

    def recv(self, op: Op) -> F32:
        (peer,) = op.numbers("peers")
        return self._receive(op, peer).astype(np.float32, copy=False)

    def all_reduce(self, op: Op, grid_TN: Grid) -> Grid:
        group, contributors = op.numbers("group"), op.numbers("contributors")
        if len(group) > 1 and op.kind != "all_reduce_bits":  # whose grid holds no numbers
            grid_TN = round_grid(grid_TN, self._wire)
        if self._node in contributors:
            self._send(op, group, grid_TN)
        total_TN = np.zeros_like(grid_TN)
        for node in contributors:
            own = node == self._node
            total_TN += grid_TN if own else self._receive(op, node).astype(np.int64, copy=False)
        return total_TN

    def gather_logits(self, op: Op, own_LN: F32 | None) -> F32 | None:
        owners = op.attributes["owners"]
        assert isinstance(owners, tuple)
        if self._node != 0:
            assert own_LN is not None
            self._send(op, (0,), own_LN)
            return None
        parts = []
        for owner in owners:
            assert isinstance(owner, tuple)
            parts.append(own_LN if owner[0] == 0 else self._receive(op, owner[0]))
        return np.concatenate(parts, axis=1)

    # --- messages ---

    def _send(self, op: Op, targets: Sequence[int], array: Array) -> None:
        """Hands a copy to each target but this node."""
        for target in targets:
            if target != self._node:
                message = (op.number("tag"), array.copy())
                self._mesh.queues[self._node, target].put(message)

    def _receive(self, op: Op, source: int) -> Array:
        """The next array from ``source``; ``StepError`` where a node failed or none comes."""
        message = self._take(source, op.name, op.number("tag"))
        assert isinstance(message, np.ndarray)
        return message

    def _take(self, source: int, what: str, tag: int, *, bounded: bool = True) -> _Payload:
        waited = 0.0
        while not bounded or waited < self._mesh.timeout_s:
            if self._mesh.failed.is_set():
                raise StepError(self._mesh.reason)
            try:
                found, message = self._mesh.queues[source, self._node].get(timeout=_POLL_S)
            except queue.Empty:
                waited += _POLL_S
                continue
            if found == tag:
                return message
            self._mesh.fail(f"{what}: node {source} sent message {found} in the place of {tag}")
        self._mesh.fail(f"{what}: node {source} has sent nothing for {self._mesh.timeout_s:g} s")
        raise StepError(self._mesh.reason)
