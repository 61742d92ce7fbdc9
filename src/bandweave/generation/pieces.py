"""Pieces: consecutive tokens of several sequences as one step, with the pages that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandweave.executors.executor import Step
from bandweave.generation.pages import Cached, PagePool


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The ``tokens`` that come next in a sequence; the last ``wants`` of them ask for logits."""

    cached: Cached
    tokens: Sequence[int]
    wants: int


def make_step(pool: PagePool, pieces: Sequence[Piece], *, prefill: bool) -> Step:
    """One step of all pieces, in their order, each with a slot. ``MemoryError`` where the pool has
    no pages left."""
    tokens: list[int] = []
    slots: list[int] = []
    positions: list[int] = []
    wants: list[bool] = []
    for slot, piece in enumerate(pieces):
        known, count = len(piece.cached.tokens), len(piece.tokens)
        pool.grow(piece.cached, known + count)
        tokens += piece.tokens
        slots += [slot] * count
        positions += range(known, known + count)
        wants += [False] * (count - piece.wants) + [True] * piece.wants
    longest = max(len(piece.cached.pages) for piece in pieces)
    tables = np.full((len(pieces), longest), -1, np.int32)
    for slot, piece in enumerate(pieces):
        tables[slot, : len(piece.cached.pages)] = piece.cached.pages
    return Step(
        tokens=np.array(tokens, np.int32),
        slots=np.array(slots, np.int32),
        positions=np.array(positions, np.int32),
        wants_logits=np.array(wants, np.bool_),
        page_tables=tables,
        prefill=prefill,
    )
