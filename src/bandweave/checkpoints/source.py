"""TensorSource: where slices of a checkpoint's tensors come from, whatever holds the files."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bandweave.ranges import Range


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or not what its config says; says what to do."""


class FileRows(NamedTuple):
    """Rows of bytes at even distances in an open file: its descriptor, where the first one begins,
    and how many bytes there are from one to the next."""

    descriptor: int
    start: int
    stride: int


class TensorSource(Protocol):
    """Tensors by bandweave's names (``layers.0.q_proj``, ``norm``, ``embed_tokens`` ...)."""

    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str:
        """``"f32"``, ``"bf16"`` or ``"f16"``; or a type of blocks, ``"q4_k"`` say."""
        ...

    def item_bits(self, name: str) -> float:
        """Stored bits of one element, its share of scales and the like included."""
        ...

    def file_key(self, name: str) -> str:
        """64 hexadecimal digits that name the very files, as they are now, that hold the tensor,
        and how it is read from them, and never others or what is written there later; empty where
        nothing tells."""
        ...

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        """The rectangle as stored: float32, float16, or uint16 holding bf16 bits; C order.
        Quantised weights come as the float32 that they stand for; those whose dtype is a type of
        blocks as these, ``[rows, bytes]`` of uint8, and ``columns`` cut none.

        Reads only the byte ranges asked for. ``columns`` None: all, or a vector.
        """
        ...

    def rows_in_file(self, name: str, rows: Range, columns: Range | None = None) -> FileRows | None:
        """Where the rows lie that ``read`` would give, if they are stored so, in a file that is on
        this machine; else None."""
        ...


#: Bits of a value, as it is read, by dtype; those of blocks depend on their type.
READ_BITS = {"f32": 32, "bf16": 16, "f16": 16}


def block_source(dtype: str) -> str:
    """A dtype that is a type of blocks; empty for one of values."""
    return "" if dtype in READ_BITS else dtype


def widen(array: npt.NDArray[np.generic], dtype: str = "f32") -> npt.NDArray[np.float32]:
    """What ``read`` returned of a tensor of a dtype, as float32; exact but for blocks, whose
    products round as docs/numerics.md says. ``CheckpointError`` for a scale that is no number."""
    if blocks := block_source(dtype):
        from bandweave import _native  # here: sizes are read where there is no native code

        try:
            return _native.widen_blocks(blocks, np.ascontiguousarray(array.view(np.uint8)))
        except ValueError as error:
            raise CheckpointError(f"blocks of {blocks}: {error}") from error
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def narrowed(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Float64 rounded once to float32; anything else as it is. What float32 cannot hold becomes
    infinite, which no weight may be."""
    if array.dtype != np.float64:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
