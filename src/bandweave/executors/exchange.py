"""StepExchange: the messages of a step, for an executor that cannot poll links while it computes.

The native executor's exchange is part of its step (native/executor). One that computes elsewhere,
on a device say, hands host buffers to this one between its own operations. Every call blocks until
what it is for has happened; each takes the operation that it is the exchange of.

Suffixes: T rows of the step, L rows that want logits, N elements of a row.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step
from bandweave.programs.program import Op

F32 = npt.NDArray[np.float32]
Grid = npt.NDArray[np.int64]


class StepExchange(Protocol):
    """One node's way to the others. ``StepError`` from any call where a node has failed."""

    def open(self, step: Step) -> None:
        """Node 0: the others learn of a step."""
        ...

    def next_step(self) -> Step | None:
        """Other nodes: waits, without bound, for node 0's next step; None when it has ended."""
        ...

    def end(self) -> None:
        """Node 0: there will be no more steps."""
        ...

    def fail(self, reason: str) -> None:
        """The step has failed here, and so for all."""
        ...

    def embed(self, op: Op, rows_TN: F32 | None) -> F32:
        """Node 0 gives its rows to the group; the others, who have None, get them."""
        ...

    def send(self, op: Op, rows_TN: F32) -> None:
        """Rows, rounded as the wire format says, to the peers of the stage behind."""
        ...

    def recv(self, op: Op) -> F32:
        """Rows from the peer of the stage before."""
        ...

    def all_reduce(self, op: Op, grid_TN: Grid) -> Grid:
        """The sum of the contributors' grids, each rounded as the wire format says, on every node
        of the group. What is not a contributor's is not looked at."""
        ...

    def gather_logits(self, op: Op, own_LN: F32 | None) -> F32 | None:
        """Node 0 gets all owners' logits side by side; ``own_LN`` is None where there are none."""
        ...


class Alone:
    """The exchange of a node that has no others."""

    def open(self, step: Step) -> None:
        pass

    def next_step(self) -> Step | None:
        raise AssertionError("one node alone follows nobody")

    def end(self) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def embed(self, op: Op, rows_TN: F32 | None) -> F32:
        assert rows_TN is not None
        return rows_TN

    def send(self, op: Op, rows_TN: F32) -> None:
        raise AssertionError(f"{op.name}: there is nobody to send to")

    def recv(self, op: Op) -> F32:
        raise AssertionError(f"{op.name}: there is nobody to receive from")

    def all_reduce(self, op: Op, grid_TN: Grid) -> Grid:
        return grid_TN

    def gather_logits(self, op: Op, own_LN: F32 | None) -> F32 | None:
        return own_LN
