"""Links between reference nodes in one process: queues, one for each pair of threads.

Knows arrays and node numbers; knows no programs. A node that fails fails all, with its reason.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step, StepError

Array = npt.NDArray[np.generic]
_Message = tuple[str, Array | Step | None]

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

    def exchange(self, node: int) -> ThreadExchange:
        return ThreadExchange(self, node)

    def fail(self, reason: str) -> None:
        """Makes every wait, on every node, raise ``StepError(reason)``."""
        if not self.failed.is_set():
            self.reason = reason
            self.failed.set()


class ThreadExchange:
    """One node's end of a ``ThreadMesh``. Messages carry the operation's name, which must match."""

    def __init__(self, mesh: ThreadMesh, node: int) -> None:
        self._mesh = mesh
        self._node = node

    def send(self, targets: Sequence[int], op: str, message: Array | Step | None) -> None:
        """Hands ``message`` to each target but this node; an array is copied."""
        for target in targets:
            if target != self._node:
                own = message.copy() if isinstance(message, np.ndarray) else message
                self._mesh.queues[self._node, target].put((op, own))

    def receive(self, source: int, op: str) -> Array:
        """The next array from ``source``; ``StepError`` where a node failed or none comes."""
        message = self._take(source, op)
        assert isinstance(message, np.ndarray)
        return message

    def receive_step(self) -> Step | None:
        """The next step from node 0, waiting without bound; None when node 0 has ended."""
        message = self._take(0, "step", bounded=False)
        assert message is None or isinstance(message, Step)
        return message

    def fail(self, reason: str) -> None:
        self._mesh.fail(reason)

    def _take(self, source: int, op: str, *, bounded: bool = True) -> Array | Step | None:
        waited = 0.0
        while not bounded or waited < self._mesh.timeout_s:
            if self._mesh.failed.is_set():
                raise StepError(self._mesh.reason)
            try:
                name, message = self._mesh.queues[source, self._node].get(timeout=_POLL_S)
            except queue.Empty:
                waited += _POLL_S
                continue
            if name == op:
                return message
            self._mesh.fail(f"{op}: node {source} sent {name} instead")
        self._mesh.fail(f"{op}: node {source} has sent nothing for {self._mesh.timeout_s:g} s")
        raise StepError(self._mesh.reason)
