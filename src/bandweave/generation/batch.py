"""Batch: the rows that sequences have in a step, and the step's arrays."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from dataclasses import dataclass

import numpy as np

from bandweave.executors.executor import Step
from bandweave.generation.pages import Cached


@dataclass(eq=False, kw_only=True)
class Rows:
    """The ``tokens`` that come next in a sequence, which has pages for them; the last ``wants`` of
    them ask for logits, and all of those but the first are drafted. So many rows before those ask
    for logits, too, which are ``heard`` and give no token. ``slots``: those of states that are read
    and written in the place of the sequence's own."""

    cached: Cached
    tokens: list[int]
    wants: int
    heard: int = 0
    slots: tuple[int, int] | None = None

    def state_numbers(self) -> tuple[int, int, int, int, int]:
        """The sequence's row of ``Step.states``."""
        cached = self.cached
        own = cached.state if cached.source < 0 else cached.source, cached.state
        read, write = self.slots or own
        slot, stop = cached.keeping or (-1, len(cached.tokens))
        return read, write, max(0, self.wants - 1), slot, stop - len(cached.tokens)


def make_step(batch: ListOf[Rows], *, prefill: bool) -> Step:
    """One step of all rows, in their order, each sequence with a slot."""
    tokens: list[int] = []
    slots: list[int] = []
    positions: list[int] = []
    wants: list[bool] = []
    for slot, rows in enumerate(batch):
        known, count = len(rows.cached.tokens), len(rows.tokens)
        tokens += rows.tokens
        slots += [slot] * count
        positions += range(known, known + count)
        asked = rows.heard + rows.wants
        wants += [False] * (count - asked) + [True] * asked
    longest = max(len(rows.cached.pages) for rows in batch)
    tables = np.full((len(batch), longest), -1, np.int32)
    for slot, rows in enumerate(batch):
        tables[slot, : len(rows.cached.pages)] = rows.cached.pages
    states = None
    if any(rows.cached.state >= 0 for rows in batch):
        states = np.array([rows.state_numbers() for rows in batch], np.int32)
    return Step(
        tokens=np.array(tokens, np.int32),
        slots=np.array(slots, np.int32),
        positions=np.array(positions, np.int32),
        wants_logits=np.array(wants, np.bool_),
        page_tables=tables,
        states=states,
        prefill=prefill,
    )
