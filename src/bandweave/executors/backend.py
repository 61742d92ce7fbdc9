"""Backend: what an engine asks of a kind of executor: sizes, weights as it wants them, executors.

Weights are packed on the host, in the bytes that the cache keeps (``weights``); a backend stores
them where it computes. Its answers are those of all others, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.executors.executor import Executor, ExecutorOptions
from bandweave.executors.native import NativeBackend
from bandweave.executors.pipeline import Pipeline
from bandweave.executors.reference.backend import ReferenceBackend
from bandweave.programs.program import Program, Weight
from bandweave.weights.packed import Weights

F32 = npt.NDArray[np.float32]


class NodeExecutor(Executor, Protocol):
    """An executor as a node has it, node 0 or another."""

    def pipeline(self, depth: int) -> Pipeline:
        """Node 0: its steps, at most ``depth`` of them under way; fewer where it cannot."""
        ...

    def follow(self, wake_descriptor: int = -1) -> str:
        """Other nodes: waits for node 0's next step and runs it: ``"ran"``, ``"left"`` when node 0
        has ended, or ``"woken"`` when the descriptor became readable."""
        ...

    def floats(self, buffer: int) -> npt.NDArray[np.float32]:
        """A buffer of the program, by its number, as the last step left it: at least as many rows
        as the step had, each as wide as memory likes it."""
        ...

    @property
    def progress(self) -> int:
        """Goes up while a step gets on; any thread may look."""
        ...

    @property
    def work_bytes(self) -> int:
        """What its steps computed on so far."""
        ...

    @property
    def fetch_ahead(self) -> int:
        """Bytes that its products fetch ahead of what they read."""
        ...

    def bill(self, *, decode: bool) -> dict[str, float]:
        """Seconds by item since the start, and counts, of steps of decoding or of all others."""
        ...


class Backend(Protocol):
    """A kind of executor. All sizes are in bytes, and of one node's program."""

    def weight_bytes(self, program: Program, weight_format: str) -> int:
        """What the program's matrices take, stored."""
        ...

    def kv_page_bytes(self, program: Program, kv_format: str) -> int:
        """One page of positions over all of the program's caches."""
        ...

    def state_bytes(self, program: Program, max_drafted: int) -> int:
        """One slot of all of the program's states, which keeps so many drafted rows."""
        ...

    def work_bytes(self, program: Program, options: ExecutorOptions) -> int:
        """What steps compute on and messages lie in, at most."""
        ...

    def store(self, weight: Weight, packed: _native.Matrix) -> object:
        """A packed matrix as executors of this kind read it."""
        ...

    def make_executor(
        self,
        program: Program,
        weights: Weights,
        options: ExecutorOptions,
        exchange: Any = None,
        *,
        team_of: Any = None,
    ) -> NodeExecutor:
        """Runs the program; ``ValueError`` for what makes no sense. ``exchange`` leads to the other
        nodes, None for one alone: the native one, or a ``StepExchange``, as the backend takes it.
        ``team_of``: an executor of the same kind, whose threads serve this one in turn."""
        ...

    def exp(self, values: F32, isa: str = "") -> F32:
        """The exponential function of docs/numerics.md, elementwise."""
        ...


NATIVE: Backend = NativeBackend()
REFERENCE: Backend = ReferenceBackend()
BACKENDS: Mapping[str, Backend] = {"native": NATIVE, "reference": REFERENCE}
