"""View: one of the model's tensors, as rows, an entry or the transposed of a stored matrix."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.tensor import Matrix, StoredTensor
from bandweave.models.places import Placed
from bandweave.ranges import Range


class View:
    """A tensor of the model. ``shape``: ``(outputs, inputs)``, or ``(size,)``; ``placed``: what of
    the matrix it is."""

    __slots__ = ("matrix", "placed", "shape")

    def __init__(self, matrix: Matrix, shape: tuple[int, ...], placed: Placed) -> None:
        self.matrix, self.shape, self.placed = matrix, shape, placed

    @property
    def whole(self) -> bool:
        """Whether it is all of a tensor that is stored as values."""
        return isinstance(self.matrix, StoredTensor) and self.matrix.shape == self.shape

    @property
    def dtype(self) -> str:
        return self.matrix.dtype

    @property
    def bits(self) -> float:
        """Stored bits of one element, its share of scales and the like included."""
        size = sum(entry.stop - entry.start for _, entry in self.matrix.stored)
        return 8 * size / math.prod(self.matrix.shape)

    @property
    def recipe(self) -> str:
        """How its values are made of stored ones; empty where they are stored so."""
        return "" if self.whole else f"view 1 of {self.matrix.recipe}"

    def read(self, rows: Range, columns: Range) -> npt.NDArray[np.generic]:
        """``[rows, columns]``, C order; the columns of a vector are ``0:1``."""
        pieces = []
        for some in self._stored_rows(rows):
            if self.placed.transposed:
                all_inputs = range(columns.start, columns.stop)
                outputs = Range(start=some.start, stop=some[-1] + 1 if some else some.start)
                read = self.matrix.read(all_inputs, outputs, self.placed.entry)
                pieces.append(read[:, :: some.step].T)
            else:
                pieces.append(self.matrix.read(some, columns, self.placed.entry))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces)

    def _stored_rows(self, rows: Range) -> list[range]:
        """Where rows lie, in as few ranges as there are."""
        first, run, period = self.placed.first, self.placed.run, self.placed.period
        if run in (period, self.shape[0]):
            return [range(first + rows.start, first + rows.stop)]
        if run == 1:
            start, stop = (first + row * period for row in (rows.start, rows.stop))
            return [range(start, max(start, stop - period + 1), period)]
        result, row = [], rows.start
        while row < rows.stop:
            turn, within = divmod(row, run)
            count = min(run - within, rows.stop - row)
            start = first + turn * period + within
            result.append(range(start, start + count))
            row += count
        return result or [range(first, first)]
