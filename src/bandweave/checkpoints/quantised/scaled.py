"""Matrices of a byte a weight with scales beside them: FP8 (e4m3, Micikevicius et al. 2022,
arXiv:2209.05433, the variant without infinities), and int8.

A weight is its code's value times the scale of its block, in float32. Blocks are those of the
stored tensor: of ``weight_block_size`` (DeepSeek-V3, arXiv:2412.19437, section 3.3), a row, or the
whole matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.quantised.scales import F32, PIECE, SCALE_DTYPES, Scales
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.tensor import (
    Found,
    StoredTensor,
    check,
    fitting,
    wrong,
)
from bandweave.ranges import Range

_KINDS = {"F8_E4M3": "fp8", "I8": "int8"}


class ScaledBytes:
    """A ``Matrix`` of codes of one byte."""

    dtype = "f32"

    def __init__(self, codes: StoredTensor, scales: Scales) -> None:
        self._codes, self._scales = codes, scales
        self.name, self.shape = codes.entry.name, codes.entry.shape
        self.stored = ((codes.file, codes.entry), scales.stored)

    @property
    def stored_as(self) -> str:
        return _KINDS[self._codes.entry.dtype]

    @property
    def recipe(self) -> str:
        return f"{_KINDS[self._codes.entry.dtype]} 1 in blocks of {self._scales.block}"

    def read(self, rows: range, columns: Range, entry: int = 0) -> F32:
        result = np.empty((len(rows), len(columns)), np.float32)
        step = max(1, PIECE // max(1, len(columns)))
        widen = _fp8 if self._codes.entry.dtype == "F8_E4M3" else _int8
        for start in range(0, len(rows), step):
            codes = self._codes.read(rows[start : start + step], columns, entry)
            if not widen(codes, result[start : start + step]):
                raise wrong(self.stored[0], "holds a NaN; download the file again")
        self._scales.apply(result, rows, columns, entry)
        return result


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> ScaledBytes | None:
    """The matrix, or the stack of matrices, of that shape whose codes are the tensor ``name``."""
    stored = found.get(name)
    if stored is None or stored[1].dtype not in _KINDS:
        return None
    scale = found.get(name + "_scale_inv") or found.get(name + "_scale")  # both are factors
    if scale is None:
        raise wrong(
            stored,
            f"is stored as {stored[1].dtype} and lacks its scales {name + '_scale_inv'!r}; "
            "download the checkpoint again, or the original model",
        )
    if stored[1].dtype == "I8" and name + "_zero_point" in found:
        raise wrong(stored, "has zero points, which are not read for int8; use the original model")
    rows, columns = shape[-2:]
    codes = StoredTensor(fitting(stored, shape), rows, columns)
    grids = _grids(shape, settings.block)
    block = grids.get(scale[1].shape)
    if block is None or scale[1].dtype not in SCALE_DTYPES:
        check(scale, SCALE_DTYPES, *grids)
    assert block is not None
    return ScaledBytes(codes, Scales(scale, block, rows, columns))


@functools.cache
def _grids(
    shape: tuple[int, ...], block: tuple[int, int] | None
) -> Mapping[tuple[int, ...], tuple[int, int]]:
    """The shapes that scales may have, and the block of each: the config's, a row, a matrix."""
    *lead, rows, columns = shape
    grids: dict[tuple[int, ...], tuple[int, int]] = {}
    if block is not None:
        grids[*lead, -(-rows // block[0]), -(-columns // block[1])] = block
    for row in ((rows, 1), (rows,)):
        grids.setdefault((*lead, *row), (1, columns))
    for one in ((1, 1), (1,), ()):
        grids.setdefault((*lead, *one), (rows, columns))
    return grids


def _fp8(codes: npt.NDArray[np.uint8], out: F32) -> bool:
    """Writes the values of e4m3 codes; whether none of them is a NaN. An exponent of 4 bits and a
    mantissa of 3 are those of a float16 that is 2^8 times smaller."""
    magnitudes = codes & np.uint8(0x7F)
    half = magnitudes.astype(np.uint16) << 7
    half |= (codes & np.uint8(0x80)).astype(np.uint16) << 8
    np.multiply(half.view(np.float16).astype(np.float32), np.float32(256), out=out)
    return not codes.size or int(magnitudes.max()) != 0x7F


def _int8(codes: npt.NDArray[np.int8], out: F32) -> bool:
    out[:] = codes
    return True
