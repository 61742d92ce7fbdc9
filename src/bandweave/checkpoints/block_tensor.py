"""BlockTensor: a tensor of a GGUF file whose weights are stored in blocks, read as it is stored.

What is read are the blocks' bytes: kernels run them as they are. Knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.byte_runs import read_runs
from bandweave.checkpoints.gguf import BLOCK_TYPES, BlockType
from bandweave.checkpoints.tensor import DTYPES, FileTensor, Stored, wrong
from bandweave.formats.gguf_blocks import RUNS_AS
from bandweave.ranges import Range

_TYPES: Mapping[str, BlockType] = {
    block.name: block for block in BLOCK_TYPES.values() if block.name.lower() in RUNS_AS
}
#: Weights of a block, by dtype.
BLOCK_WEIGHTS: Mapping[str, int] = {name.lower(): one.weights for name, one in _TYPES.items()}


class BlockTensor(FileTensor):
    """A stack of matrices of ``rows`` by ``columns`` weights, a ``checkpoints.tensor.Matrix``.

    ``dtype`` and ``stored_as`` are the type's name in small letters, ``"q4_k"`` say.
    """

    __slots__ = ("block",)

    def __init__(self, stored: Stored, rows: int, columns: int) -> None:
        """``CheckpointError`` for a type that is not read."""
        super().__init__(stored, rows, columns)
        block = _TYPES.get(self.entry.dtype)
        if block is None:
            known = ", ".join([*DTYPES, *_TYPES])
            raise wrong(
                stored,
                f"is stored as {self.entry.dtype}, which is not read; download a version in Q4_K_M "
                f"or another one that holds these alone: {known}",
            )
        self.block = block

    @property
    def dtype(self) -> str:
        return self.block.name.lower()

    @property
    def stored_as(self) -> str:
        return self.dtype

    def read(self, rows: range, columns: Range, entry: int = 0) -> npt.NDArray[np.uint8]:
        """``[rows, bytes]``: the blocks of the columns, which must be whole ones. ``rows`` may have
        a step. ``ValueError`` for columns that cut a block."""
        weights, size = self.block.weights, self.block.bytes
        if columns.start % weights or columns.stop % weights:
            raise ValueError(f"columns {columns} of {self.name} cut blocks of {weights}")
        result = np.empty((len(rows), len(columns) // weights * size), np.uint8)
        if result.size:
            read_runs(self.file, result, *self.place(rows, columns, entry))
        return result

    def place(self, rows: range, columns: Range, entry: int) -> tuple[int, int]:
        weights, size = self.block.weights, self.block.bytes
        stride, row = self.columns // weights * size, entry * self.rows + rows.start
        return self.entry.start + row * stride + columns.start // weights * size, rows.step * stride
