"""Scales: a number for each block of a matrix, by which its values are multiplied."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.source import widen
from bandweave.checkpoints.tensor import DTYPES, Stored, StoredTensor, wrong
from bandweave.ranges import Range

SCALE_DTYPES = (*DTYPES, "F8_E8M0", "U8")

PIECE = 1 << 18  # values that are worked on at a time, so that they stay in a processor's cache

# E8M0 (OCP Microscaling Formats 1.0): the exponent of a power of two, biased by 127; 255 is a NaN.
_E8M0 = np.append(np.ldexp(np.ones(255), np.arange(255) - 127), np.nan).astype(np.float32)

F32 = npt.NDArray[np.float32]


class Scales:
    """One for each ``block``, ``(rows, columns)`` of them, counted from the matrix's first element.
    Blocks at the ends may be partial. ``signed``: some may be negative, as those of integers that
    were rounded with the largest weight at the end of their range (AutoRound, arXiv:2309.05516)."""

    __slots__ = ("_signed", "_tensor", "block", "stored")

    def __init__(
        self,
        stored: Stored,
        block: tuple[int, int],
        rows: int,
        columns: int,
        *,
        signed: bool = False,
    ) -> None:
        """Of matrices of ``rows`` by ``columns``; one grid of them may be for all entries."""
        self.stored, self.block, self._signed = stored, block, signed
        self._tensor = StoredTensor(stored, -(-rows // block[0]), -(-columns // block[1]))

    def read(self, rows: Range, columns: Range, entry: int = 0) -> F32:
        """The numbers of blocks, counted in blocks. ``CheckpointError`` for one that is NaN or
        infinite, or negative where none may be."""
        own = math.prod(self.stored[1].shape) > self._tensor.rows * self._tensor.columns
        some = range(rows.start, rows.stop)
        raw = self._tensor.read(some, columns, entry if own else 0)
        values = _E8M0[raw] if raw.dtype == np.uint8 else widen(raw)
        # A NaN is no less than infinity.
        bad = ~(np.abs(values) < np.inf)
        if not self._signed:
            bad |= values < 0
        if bad.any():
            kind = "finite" if self._signed else "finite and not negative"
            raise wrong(
                self.stored,
                f"holds the scale {values[bad][0]}; scales are {kind}: download the file again",
            )
        return values

    def apply(self, values: F32, rows: range, columns: Range, entry: int = 0) -> None:
        """Multiplies a rectangle's values by their blocks' scales, in float32."""
        if not values.size:
            return
        high, wide = self.block
        rows_of = Range(start=rows[0] // high, stop=rows[-1] // high + 1)
        columns_of = Range(start=columns.start // wide, stop=(columns.stop - 1) // wide + 1)
        if len(rows_of) == len(columns_of) == 1:  # as of a small matrix
            with np.errstate(over="ignore"):  # an infinite weight is refused with its tensor's name
                values *= self.read(rows_of, columns_of, entry)
            return
        down, across = np.asarray(rows), np.arange(columns.start, columns.stop)
        self.apply_blocks(values, down // self.block[0], across // self.block[1], entry)

    def apply_blocks(
        self, values: F32, down: npt.NDArray[np.int64], across: npt.NDArray[np.int64], entry: int
    ) -> None:
        """``apply``, by the number of the block along each dim of every row and column."""
        grid = gathered(self.read, down, across, entry)
        down = down - down[0]
        step = max(1, PIECE // values.shape[1])
        with np.errstate(over="ignore"):  # an infinite weight is refused with its tensor's name
            for start in range(0, len(values), step):
                values[start : start + step] *= grid[down[start : start + step]]


def gathered(
    read: Callable[[Range, Range, int], F32],
    down: npt.NDArray[np.int64],
    across: npt.NDArray[np.int64],
    entry: int,
) -> F32:
    """Reads a grid's blocks: those of rows ``down``, which ascend, from the first to the last, and
    of every column its own, or one column where all columns share a block."""
    first, last = int(across.min()), int(across.max())
    rows = Range(start=int(down[0]), stop=int(down[-1]) + 1)
    grid = read(rows, Range(start=first, stop=last + 1), entry)
    return grid if first == last else grid[:, across - first]
