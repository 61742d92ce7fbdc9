"""View: one of the model's tensors, as rows, an entry or the transposed of a stored matrix."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.block_tensor import BlockTensor
from bandweave.checkpoints.rounded_log import rounded_log
from bandweave.checkpoints.source import FileRows, widen
from bandweave.checkpoints.tensor import Matrix, StoredTensor, wrong
from bandweave.models.places import Placed
from bandweave.ranges import Range


class View:
    """A tensor of the model. ``shape``: ``(outputs, inputs)``, or ``(size,)``; ``placed``: what of
    the matrix it is."""

    __slots__ = ("_bits", "matrix", "placed", "shape")

    def __init__(self, matrix: Matrix, shape: tuple[int, ...], placed: Placed) -> None:
        self.matrix, self.shape, self.placed = matrix, shape, placed
        self._bits = 0.0

    @property
    def whole(self) -> bool:
        """Whether it is all of a tensor that is stored as values."""
        placed = self.placed
        changed = placed.pairs or placed.tiles or placed.log
        plain = isinstance(self.matrix, (StoredTensor, BlockTensor)) and not changed
        return plain and self.matrix.shape == self.shape

    @property
    def dtype(self) -> str:
        """As ``read`` gives it."""
        return "f32" if self._is_widened else self.matrix.dtype

    @property
    def stored_as(self) -> str:
        """How it can be run at best: blocks that must be turned round are blocks no more, and those
        that must be cut are nearest to integers of 8 bits."""
        if self._cuts_blocks:
            return "int8"
        return "f32" if self._is_widened else self.matrix.stored_as

    @property
    def _is_widened(self) -> bool:
        turned = self.placed.transposed or self.placed.turned
        blocks = isinstance(self.matrix, BlockTensor)
        return self.placed.log or self._cuts_blocks or (bool(turned) and blocks)

    @property
    def _cuts_blocks(self) -> bool:
        """Whether a block holds columns of heads that are kept apart."""
        placed, matrix = self.placed, self.matrix
        if not (placed.tiled_columns and placed.tiles and isinstance(matrix, BlockTensor)):
            return False
        return placed.tiles[2] % matrix.block.weights != 0

    @property
    def bits(self) -> float:
        """Stored bits of one element, its share of scales and the like included."""
        if not self._bits:  # loading asks for it several times
            size = sum(entry.stop - entry.start for _, entry in self.matrix.stored)
            self._bits = 8 * size / math.prod(self.matrix.shape)
        return self._bits

    @property
    def recipe(self) -> str:
        """How its values are made of stored ones; empty where they are stored so."""
        return "" if self.whole else f"view 1 of {self.matrix.recipe}"

    def read(self, rows: Range, columns: Range) -> npt.NDArray[np.generic]:
        """``[rows, columns]``, C order, of blocks ``[rows, bytes]``; the columns of a vector are
        ``0:1``."""
        placed = self.placed
        if placed.pairs:
            return self._read_pairs(rows, columns, placed.pairs)
        if placed.turned:
            return self._read_groups(rows, columns, placed.turned)
        if placed.log:
            return self._read_log(rows, columns)
        if placed.tiles and placed.tiled_columns:
            return self._read_tiled_columns(rows, columns)
        pieces = []
        for some in self._stored_rows(rows):
            if self.placed.transposed:
                all_inputs = range(columns.start, columns.stop)
                outputs = Range(start=some.start, stop=some[-1] + 1 if some else some.start)
                read = self._read_turned(all_inputs, outputs)
                pieces.append(read[:, :: some.step].T)
            else:
                pieces.append(self.matrix.read(some, columns, self.placed.entry))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces)

    def rows_in_file(self, rows: Range, columns: Range) -> FileRows | None:
        """Where the rows lie that ``read`` would give; None where they are made of others, or lie
        in several places."""
        placed, matrix = self.placed, self.matrix
        moved = placed.pairs or placed.turned or placed.transposed or placed.tiles or placed.log
        if moved or not isinstance(matrix, (StoredTensor, BlockTensor)):
            return None
        stored = self._stored_rows(rows)
        if len(stored) != 1:
            return None
        return matrix.rows_in_file(stored[0], columns, placed.entry)

    def _read_log(self, rows: Range, columns: Range) -> npt.NDArray[np.float32]:
        stored = [self.matrix.read(some, columns, self.placed.entry)
                  for some in self._stored_rows(rows)]  # fmt: skip
        values = widen(np.concatenate(stored), self.matrix.dtype)
        if not (np.isfinite(values).all() and (values < 0).all()):
            raise wrong(self.matrix.stored[0], "must hold negative numbers alone")
        return rounded_log(-values)

    def _read_tiled_columns(self, rows: Range, columns: Range) -> npt.NDArray[np.generic]:
        """Columns of heads that are stored in another order: those of a head lie together."""
        assert self.placed.tiles
        some = range(self.placed.first + rows.start, self.placed.first + rows.stop)
        read = self._read_turned if self._cuts_blocks else self._read_some
        pieces = [read(some, one) for one in _tiled(columns, self.placed.tiles)]
        if not pieces:
            return np.ascontiguousarray(read(some, Range(start=0, stop=0)))
        return np.ascontiguousarray(np.concatenate(pieces, axis=1))

    def _read_some(self, rows: range, columns: Range) -> npt.NDArray[np.generic]:
        return self.matrix.read(rows, columns, self.placed.entry)

    def _read_pairs(self, rows: Range, columns: Range, head: int) -> npt.NDArray[np.generic]:
        """Rows of heads that are stored in pairs of their halves' rows: whole heads are read."""
        first, last = rows.start // head * head, -(-rows.stop // head) * head
        read = self.matrix.read(range(first, last), columns, self.placed.entry)
        turned = read.reshape(-1, head // 2, 2, read.shape[1]).swapaxes(1, 2)
        whole = turned.reshape(last - first, read.shape[1])
        return np.ascontiguousarray(whole[rows.start - first : rows.stop - first])

    def _read_groups(self, rows: Range, columns: Range, size: int) -> npt.NDArray[np.generic]:
        """Rows of which every ``size`` are the columns of one run of stored rows."""
        first, period = self.placed.first, self.placed.period
        pieces, row = [], rows.start
        while row < rows.stop:
            group, within = divmod(row, size)
            some = Range(start=within, stop=min(size, within + rows.stop - row))
            start = group * period + first
            stored = range(start + columns.start, start + columns.stop)
            pieces.append(self._read_turned(stored, some).T)
            row += len(some)
        if not pieces:
            return np.ascontiguousarray(self._read_turned(range(0), columns)[:, :0].T)
        return np.ascontiguousarray(np.concatenate(pieces))

    def _read_turned(self, rows: range, columns: Range) -> npt.NDArray[np.generic]:
        """What is stored of a transposed tensor, as values."""
        if not isinstance(self.matrix, BlockTensor):
            return self.matrix.read(rows, columns, self.placed.entry)
        weights = self.matrix.block.weights
        start, stop = columns.start // weights * weights, -(-columns.stop // weights) * weights
        whole = self.matrix.read(rows, Range(start=start, stop=stop), self.placed.entry)
        values = widen(whole, self.matrix.dtype)
        return values[:, columns.start - start : columns.stop - start]

    def _stored_rows(self, rows: Range) -> list[range]:
        """Where rows lie, in as few ranges as there are."""
        first, run, period = self.placed.first, self.placed.run, self.placed.period
        if self.placed.tiles and not self.placed.tiled_columns:
            assert run in (period, self.shape[0]), "tiles lie in one run"
            found = _tiled(rows, self.placed.tiles)
            return [range(first + one.start, first + one.stop) for one in found] or [range(0)]
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


def _tiled(wanted: Range, tiles: tuple[int, int, int]) -> list[Range]:
    """Where rows or columns lie of heads of which the first of each group are stored first."""
    groups, sharing, size = tiles
    result: list[Range] = []
    at = wanted.start
    while at < wanted.stop:
        head, within = divmod(at, size)
        group, place = divmod(head, sharing)
        count = min(size - within, wanted.stop - at)
        start = (place * groups + group) * size + within
        result.append(Range(start=start, stop=start + count))
        at += count
    return result
