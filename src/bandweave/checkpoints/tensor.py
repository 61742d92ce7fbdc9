"""StoredTensor: a tensor of a safetensors file as a stack of matrices, read by rectangles.

``Matrix`` is what both it and the quantised formats offer: values that can be computed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.byte_runs import read_runs
from bandweave.checkpoints.headed_file import HeadedFile, TensorEntry
from bandweave.checkpoints.source import CheckpointError, FileRows, narrowed
from bandweave.ranges import Range
from bandweave.shown import printable, shown

Stored = tuple[HeadedFile, TensorEntry]
Found = Mapping[str, Stored]

#: The stored dtypes that hold values as they are: what a reader gets, and the array on disk.
DTYPES: Mapping[str, tuple[str, type[np.generic]]] = {
    "F32": ("f32", np.float32),
    "F16": ("f16", np.float16),
    "BF16": ("bf16", np.uint16),
    "F64": ("f32", np.float64),  # rounded to float32 as it is read
}

# What is stored, as arrays: those, and what quantised formats are made of, as integers where numpy
# has no type for it.
_ITEMS: Mapping[str, type[np.generic]] = {
    **{name: item for name, (_, item) in DTYPES.items()},
    "U8": np.uint8, "I8": np.int8, "I32": np.int32, "I64": np.int64,
    "F8_E4M3": np.uint8, "F8_E8M0": np.uint8,
}  # fmt: skip


class Misfit(CheckpointError):
    """A stored tensor whose shape or dtype is another than was asked for."""


class Matrix(Protocol):
    """A stack of matrices of values, one where the model's tensor is none; a vector has one column.

    ``shape``: as stored, widened. ``name``: the stored tensor that messages name. ``dtype``:
    ``"f32"``, ``"bf16"`` or ``"f16"``. ``stored``: all tensors that it is made of, the one that
    ``name`` is first. ``recipe``: how values are made of them, empty where they are stored so.
    ``stored_as``: how a weight is stored, ``"f64"``, ``"f32"``, ``"f16"``, ``"bf16"``, ``"fp8"``,
    ``"int8"``, ``"mxfp4"``, ``"int4"``, ``"int2"``, or a block type's name, which is its ``dtype``
    too (see ``block_tensor``).
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def stored(self) -> Sequence[Stored]: ...
    @property
    def recipe(self) -> str: ...
    @property
    def stored_as(self) -> str: ...

    def read(self, rows: range, columns: Range, entry: int = 0) -> npt.NDArray[np.generic]:
        """``[rows, columns]`` of an entry, C order: float32, float16, or uint16 holding bf16 bits.
        ``CheckpointError`` where what is stored there makes no sense."""
        ...


class FileTensor:
    """A tensor of one file, as a stack of matrices of ``rows`` by ``columns`` elements."""

    __slots__ = ("columns", "entry", "file", "rows")

    recipe = ""

    def __init__(self, stored: Stored, rows: int, columns: int) -> None:
        self.file, self.entry = stored
        self.rows, self.columns = rows, columns

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def stored(self) -> tuple[Stored, ...]:
        return ((self.file, self.entry),)

    def place(self, rows: range, columns: Range, entry: int) -> tuple[int, int]:
        """Where the first of the rows begins in the file, and the bytes from one to the next."""
        raise NotImplementedError

    def rows_in_file(self, rows: range, columns: Range, entry: int = 0) -> FileRows | None:
        """Where the rows lie that ``read`` would give; None where not all of the file is on this
        machine, or its values are read as others."""
        descriptor = self.file.descriptor
        if descriptor is None:
            return None
        return FileRows(descriptor, *self.place(rows, columns, entry))


class StoredTensor(FileTensor):
    """What a file holds, as a stack of matrices of ``rows`` by ``columns`` elements; dtypes that
    are no values as integers."""

    __slots__ = ("item",)

    def __init__(self, stored: Stored, rows: int, columns: int) -> None:
        super().__init__(stored, rows, columns)
        self.item = _ITEMS[self.entry.dtype]

    @property
    def dtype(self) -> str:
        return DTYPES[self.entry.dtype][0]

    @property
    def stored_as(self) -> str:
        return self.entry.dtype.lower()

    def read(self, rows: range, columns: Range, entry: int = 0) -> npt.NDArray[Any]:
        """The rectangle as stored, but float64 rounded to float32; ``rows`` may have a step."""
        result = np.empty((len(rows), len(columns)), self.item)
        if result.size:
            read_runs(self.file, result.view(np.uint8), *self.place(rows, columns, entry))
        return narrowed(result)

    def place(self, rows: range, columns: Range, entry: int) -> tuple[int, int]:
        size = np.dtype(self.item).itemsize
        stride, row = self.columns * size, entry * self.rows + rows.start
        return self.entry.start + row * stride + columns.start * size, rows.step * stride

    def rows_in_file(self, rows: range, columns: Range, entry: int = 0) -> FileRows | None:
        return None if self.item is np.float64 else super().rows_in_file(rows, columns, entry)


def wrong(stored: Stored, how: str) -> CheckpointError:
    """An error that names a stored tensor and its file."""
    file, entry = stored
    return CheckpointError(f"{printable(file.path)}: tensor {shown(entry.name)} {how}")


def companion(found: Found, of: Stored, name: str, what: str) -> Stored:
    """The tensor ``name`` without which another one cannot be read."""
    if name not in found:
        raise wrong(of, f"lacks its {what} {shown(name)}; download the checkpoint again")
    return found[name]


def fitting(
    stored: Stored,
    shape: tuple[int, ...],
    said_by: str = "config.json",
    hint: str = "is it the config of these weights?",
) -> Stored:
    """The tensor, if it has that shape; else ``Misfit``. ``said_by``: what asks for it."""
    entry = stored[1]
    if entry.shape == shape:
        return stored
    if entry.shape == (*shape[:-2], *shape[:-3:-1]):
        hint = "it is stored transposed, so use the version in Hugging Face layout"
    raise Misfit(
        f"{printable(stored[0].path)}: tensor {shown(entry.name)} has shape "
        f"{shown(list(entry.shape))}, but {said_by} asks for {list(shape)}; {hint}"
    )


def check(stored: Stored, dtypes: Sequence[str], *shapes: tuple[int, ...]) -> Stored:
    """The tensor, if it has one of the dtypes and one of the shapes."""
    entry = stored[1]
    if entry.dtype not in dtypes:
        raise wrong(
            stored, f"is stored as {entry.dtype}, but {' or '.join(dtypes)} belongs there; "
            "download the checkpoint again",
        )  # fmt: skip
    if entry.shape not in shapes:
        expected = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise wrong(
            stored, f"has shape {shown(list(entry.shape))}, but {expected} belongs there; is it "
            "the config of these weights?",
        )  # fmt: skip
    return stored
