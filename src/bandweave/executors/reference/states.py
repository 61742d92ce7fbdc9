"""Recurrent states of sequences, as numpy arrays: which slot a step reads and which it writes, and
what of a slot's last rows turned out right.

Knows steps and shapes; knows no operations.

Suffixes: S slots, H value heads, K and V elements of a key and of a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step
from bandweave.executors.reference.math import F32
from bandweave.programs.program import StateShape


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A sequence's part of a step. ``rows``: its rows of the step, of which the first ``certain``
    are surely its own; ``replayed``: of the rows that ``read`` keeps, those that turned out right.
    ``keep``: the slot that gets the state behind ``kept`` rows, -1 for none."""

    rows: npt.NDArray[np.intp]
    fresh: bool
    read: int
    write: int
    replayed: int
    certain: int
    keep: int
    kept: int


class StateBook:
    """Where each slot's state stands: behind so many tokens, with so many rows after them that may
    be wrong. The same on all nodes."""

    def __init__(self, num_states: int, most_drafted: int) -> None:
        self._num_states, self._most_drafted = num_states, most_drafted
        self._stands: list[tuple[int, int] | None] = [None] * num_states

    def turns(self, step: Step) -> list[Turn]:
        """The turns of the step's sequences; where their slots stand is then as it will be behind
        it. ``ValueError`` for a step that the states do not allow."""
        turns, after = [], dict[int, tuple[int, int]]()
        for slot, numbers in enumerate(state_rows(step).tolist()):
            rows = np.flatnonzero(step.slots == slot)
            if not len(rows):
                continue
            turn, own = self._turn(step, rows, *numbers)
            if own.keys() & after.keys():
                raise ValueError("two sequences of a step write one state")
            after |= own
            turns.append(turn)
        for turn in turns:
            if not turn.fresh and turn.read != turn.write and turn.read in after:
                raise ValueError("a sequence of a step reads a state that another one writes")
        for slot, stands in after.items():
            self._stands[slot] = stands
        return turns

    def _turn(
        self,
        step: Step,
        rows: npt.NDArray[np.intp],
        read: int,
        write: int,
        drafted: int,
        keep: int,
        kept: int,
    ) -> tuple[Turn, dict[int, tuple[int, int]]]:
        positions = step.positions[rows]
        start = int(positions[0])
        if (np.diff(positions) != 1).any():
            raise ValueError("a sequence's rows leave out a position")
        if not 0 <= drafted < len(rows) or drafted > self._most_drafted:
            raise ValueError("a sequence has more drafted rows than its state keeps")
        replayed = 0
        if start:
            stands = self._stands[read] if 0 <= read < self._num_states else None
            if stands is None or not 0 <= start - stands[0] <= stands[1]:
                raise ValueError("a sequence goes on elsewhere than its state stands")
            replayed = start - stands[0]
        certain = len(rows) - drafted
        own = {write: (start + certain, drafted)}
        if keep >= 0:
            if keep == write or not 1 <= kept <= certain:
                raise ValueError("a state is kept that is none")
            own[keep] = (start + kept, 0)
        if not all(0 <= slot < self._num_states for slot in own):
            raise ValueError("a state does not exist")
        turn = Turn(
            rows=rows, fresh=start == 0, read=read, write=write, replayed=replayed,
            certain=certain, keep=keep, kept=kept,
        )  # fmt: skip
        return turn, own


def state_rows(step: Step) -> npt.NDArray[np.int32]:
    """The step's ``states``; where it has none, each sequence has the slot of its number."""
    if step.states is not None:
        return step.states
    return own_states(len(step.page_tables))


def own_states(count: int) -> npt.NDArray[np.int32]:
    """``Step.states`` of so many sequences, each with the slot of its number."""
    slots = np.arange(count)
    nothing = np.zeros_like(slots)
    return np.stack([slots, slots, nothing, nothing - 1, nothing], axis=1).astype(np.int32)


class LayerState:
    """One of a program's states: ``matrices_SHKV``, and ``rows_SRN``, the last rows: those that
    lie before where the slot stands, then those that may be wrong."""

    def __init__(self, shape: StateShape, num_states: int, most_drafted: int) -> None:
        self.history = shape.history
        self.matrices_SHKV: F32 = np.zeros(
            (num_states, shape.heads, shape.k_dim, shape.v_dim), np.float32
        )
        self.rows_SRN: F32 = np.zeros(
            (num_states, shape.history + most_drafted, shape.row), np.float32
        )

    def before(self, turn: Turn) -> F32:
        """The last rows before a turn's, ``[history, row]``; zeros where a sequence begins."""
        rows = self.rows_SRN[turn.read, turn.replayed : turn.replayed + self.history]
        return np.zeros_like(self.rows_SRN[0, : self.history]) if turn.fresh else rows.copy()

    def keep_rows(self, turn: Turn, all_RN: F32) -> None:
        """``all_RN``: what ``before`` gave, then the turn's own rows."""
        last = all_RN[turn.certain :]
        self.rows_SRN[turn.write, : len(last)] = last
        if turn.keep >= 0:
            kept = all_RN[turn.kept : turn.kept + self.history]
            self.rows_SRN[turn.keep, : self.history] = kept
