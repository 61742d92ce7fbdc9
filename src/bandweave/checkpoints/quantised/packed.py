"""Integers packed into words of 32 bits as compressed-tensors stores them (``pack-quantized``):
``X_packed``, codes of 4 or 8 bits along a row, the lowest first, ``X_scale`` for groups of a row,
``X_shape``, and where there are, ``X_zero_point`` and ``X_g_idx``, the group of every column.

A weight is its code, less the zero point, times its group's scale, in float32. Codes and zero
points are stored with half their range added.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.quantised import nibbles
from bandweave.checkpoints.quantised.scales import F32, PIECE, SCALE_DTYPES, Scales, gathered
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.quantised.words import group_numbers, unpacked_rows
from bandweave.checkpoints.tensor import (
    Found,
    Stored,
    StoredTensor,
    check,
    companion,
    fitting,
    wrong,
)
from bandweave.ranges import Range

_CODES = nibbles.pairs(range(16))


class Packed:
    """A ``Matrix`` of packed integers."""

    dtype = "f32"

    def __init__(
        self,
        codes: Stored,
        scales: Scales,
        shape: tuple[int, ...],
        bits: int,
        stated_shape: Stored,
        zeros: Stored | None,
        groups: Stored | None,
    ) -> None:
        rows, columns = shape
        self.name, self.shape = codes[1].name, shape
        # A word of 32 bits is 4 bytes, the lowest first, so codes of a row are halves of bytes, or
        # bytes, in their order.
        self._codes = StoredTensor(codes, rows, -(-columns * bits // 32))
        self._scales, self._bits = scales, bits
        self._stated_shape, self._zeros, self._groups = stated_shape, zeros, groups
        self._checked = False
        others = (one for one in (zeros, groups) if one is not None)
        self.stored = (codes, scales.stored, stated_shape, *others)
        self.stored_as = f"int{bits}"
        self.recipe = f"packed 1 of {bits} bits in blocks of {scales.block}"

    def read(self, rows: range, columns: Range, entry: int = 0) -> F32:
        self._check_shape()
        if self._bits == 4:
            result = nibbles.values_of(self._bytes, _CODES, rows, columns)
        else:
            result = self._bytes(rows, columns, 0).astype(np.float32)
        if not result.size:
            return result
        down = np.asarray(rows) // self._scales.block[0]
        across = self._group_of(columns)
        if self._zeros is None:
            result -= np.float32(1 << (self._bits - 1))
        else:
            zeros = gathered(self._read_zeros, np.asarray(rows), across, 0)
            step = max(1, PIECE // len(columns))
            line = np.asarray(rows) - rows.start
            for start in range(0, len(rows), step):
                result[start : start + step] -= zeros[line[start : start + step]]
        self._scales.apply_blocks(result, down, across, 0)
        return result

    def _bytes(self, rows: range, columns: Range, entry: int) -> npt.NDArray[np.uint8]:
        """Bytes of rows of words."""
        words = Range(start=columns.start // 4, stop=-(-columns.stop // 4))
        read = self._codes.read(rows, words, entry).view(np.uint8)
        first = columns.start - 4 * words.start
        return read[:, first : first + len(columns)]

    def _group_of(self, columns: Range) -> npt.NDArray[np.int64]:
        if self._groups is None:
            return np.arange(columns.start, columns.stop) // self._scales.block[1]
        size = self._scales.block[1]
        return group_numbers(self._groups, columns, -(-self.shape[1] // size), size)

    def _read_zeros(self, rows: Range, columns: Range, entry: int) -> F32:
        """Zero points of rows and groups, with half the codes' range added."""
        assert self._zeros is not None
        groups = self._zeros[1].shape[1]
        if self._zeros[1].dtype == "I8":
            tensor = StoredTensor(self._zeros, self.shape[0], groups)
            plain, half = tensor.read(range(rows.start, rows.stop), columns), 1 << (self._bits - 1)
            if plain.size and (plain.min() < -half or plain.max() >= half):
                bad = plain[(plain < -half) | (plain >= half)][0]
                raise wrong(
                    self._zeros,
                    f"holds the zero point {bad}, but those of {self._bits} bits are {-half} to "
                    f"{half - 1}; download the file again",
                )
            return plain.astype(np.float32) + np.float32(half)
        per_word = 32 // self._bits
        words = range(rows.start // per_word, -(-rows.stop // per_word))
        tensor = StoredTensor(self._zeros, self._zeros[1].shape[0], groups)
        codes = unpacked_rows(tensor.read(words, columns), self._bits)
        first = rows.start - words.start * per_word
        return codes[first : first + len(rows)].astype(np.float32)

    def _check_shape(self) -> None:
        """That the stated shape is the matrix's; not read before it is needed, since a model may
        have a hundred thousand of them."""
        if self._checked:
            return
        stated = StoredTensor(self._stated_shape, 1, 2).read(range(1), Range(start=0, stop=2))[0]
        if tuple(stated.tolist()) != self.shape:
            raise wrong(
                self._stated_shape,
                f"says that the matrix is {stated.tolist()}, but config.json asks for "
                f"{list(self.shape)}; is it the config of these weights?",
            )
        self._checked = True


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> Packed | None:
    """The matrix of that shape whose packed codes are ``name`` packed."""
    codes = found.get(name + "_packed")
    if codes is None:
        return None
    if len(shape) != 2:
        raise wrong(
            codes, "is a stack of packed matrices, which is not read; use the original model"
        )
    rows, columns = shape
    width = codes[1].shape[-1] if codes[1].shape else 0
    bits = 8 if width == -(-columns * 8 // 32) and columns > 4 else 4
    check(fitting(codes, (rows, -(-columns * bits // 32))), ("I32",), codes[1].shape)
    stored = companion(found, codes, name + "_scale", "scales")
    groups = found.get(name + "_g_idx")
    if groups is not None:
        check(groups, ("I32", "I64"), (columns,))
    scales = Scales(stored, _block(stored, shape, settings), rows, columns, signed=True)
    count = -(-columns // scales.block[1])
    zeros = found.get(name + "_zero_point")
    if zeros is None and settings.zero_points:
        zeros = companion(found, codes, name + "_zero_point", "zero points")
    if zeros is not None:
        packed = (-(-rows * bits // 32), count)
        check(zeros, ("I8",) if zeros[1].dtype == "I8" else ("I32",),
              (rows, count) if zeros[1].dtype == "I8" else packed)  # fmt: skip
    stated = companion(found, codes, name + "_shape", "shape")
    check(stated, ("I32", "I64"), (2,))
    return Packed(codes, scales, shape, bits, stated, zeros, groups)


def _block(stored: Stored, shape: tuple[int, ...], settings: Settings) -> tuple[int, int]:
    """What a scale is for: a group of a row, or a row."""
    rows, columns = shape
    if not settings.group_sizes:  # the config is silent, so the shape has to tell
        count = stored[1].shape[-1] if len(stored[1].shape) == 2 else 1
        fits = count and columns % count == 0
        check(stored, SCALE_DTYPES, (rows, count if fits else 1), (rows,))
        return 1, columns // count
    sizes: dict[tuple[int, ...], int] = {
        (rows, -(-columns // size)): size for size in settings.group_sizes if size
    }
    if 0 in settings.group_sizes:
        sizes |= {(rows, 1): columns, (rows,): columns}
    check(stored, SCALE_DTYPES, *sizes)
    size = sizes[stored[1].shape]
    if columns % size:
        raise wrong(
            stored,
            f"is for groups of {size}, of which rows of {columns} weights are no multiple; is it "
            "the config of these weights?",
        )
    return 1, size
