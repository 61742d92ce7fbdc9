"""Flight: a step that is under way: what was asked of the executor, and by when.

Plain data, and what can be told of it before its tokens are there.
"""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Step
from bandweave.generation.masks import Masks
from bandweave.generation.scheduler import SequenceRows
from bandweave.generation.sequence import Sequence
from bandweave.generation.speculation.controller import Drafts


@dataclass(frozen=True, eq=False, kw_only=True)
class Flight:
    """``best_only``: the best tokens alone were asked for; ``begun``: when, by the generator's
    clock."""

    batch: ListOf[SequenceRows]
    step: Step
    embeddings: npt.NDArray[np.float32]
    drafts: Drafts | None
    masks: Masks
    best_only: bool
    begun: float

    @property
    def wanting(self) -> list[SequenceRows]:
        """The rows of the sequences that get a token."""
        return [rows for rows in self.batch if rows.wants]


def reading(batch: ListOf[SequenceRows]) -> list[tuple[int, int]]:
    """The requests whose prompts are read in a step, each with its tokens that were read before."""
    each = [rows.sequence for rows in batch if not rows.sequence.decodes]
    return [(one.id, min(len(one.cached.tokens), len(one.request.tokens))) for one in each]


def embedded(batch: ListOf[SequenceRows]) -> dict[int, Sequence]:
    """The sequences whose prompts' embeddings can be read behind a step, by their rows of it."""
    count = 0
    places: dict[int, Sequence] = {}
    for rows in batch:
        asked, one = rows.heard + rows.wants, rows.sequence
        place = len(one.request.tokens) - 1 - len(rows.cached.tokens)  # in these rows
        there = len(rows.tokens) - asked <= place < len(rows.tokens)
        if one.request.embeds and there and not one.embedding:
            places[count + place] = one
        count += len(rows.tokens)
    return places
