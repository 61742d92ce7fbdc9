"""Cut: what is counted along the split dim of a tensor, and what of it no split divides.

Knows sizes only; which node gets what is for ``programs.split`` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

COLUMN_UNIT = 64
VOCABULARY_UNIT = 256


class Axis(Enum):
    """What the things along a split dim are."""

    HEADS = "heads"  # query heads
    KV_HEADS = "kv_heads"  # key/value heads, each held by every node whose query heads read it
    COLUMNS = "columns"  # columns of an MLP
    VOCABULARY = "vocabulary"  # rows of the vocabulary


@dataclass(frozen=True, slots=True)
class Cut:
    """``total`` things of ``width`` elements each, which nodes get in units of ``step`` things; the
    last unit may be short. ``sharing``: query heads that read one KV head."""

    axis: Axis
    total: int
    width: int = 1
    step: int = 1
    sharing: int = 1

    @property
    def unit(self) -> int:
        """Elements of a unit."""
        return self.step * self.width


def heads(total: int, width: int, step: int = 1) -> Cut:
    """So many query heads of ``width`` elements, which nodes get ``step`` at a time."""
    return Cut(Axis.HEADS, total, width, step)


def kv_heads(total: int, width: int, sharing: int) -> Cut:
    """So many KV heads of ``width`` elements, each for ``sharing`` query heads."""
    return Cut(Axis.KV_HEADS, total, width, sharing=sharing)


def columns(total: int, step: int = COLUMN_UNIT) -> Cut:
    """The columns of an MLP."""
    return Cut(Axis.COLUMNS, total, step=step)


def vocabulary(total: int) -> Cut:
    """The rows of the vocabulary."""
    return Cut(Axis.VOCABULARY, total, step=VOCABULARY_UNIT)
