"""Matrices of a byte a weight with scales beside them: FP8 (e4m3, Micikevicius et al. 2022,
arXiv:2209.05433, the variant without infinities), and int8.

A weight is its code's value times the scale of its block, in float32. Blocks are those of the
stored tensor: of ``weight_block_size`` (DeepSeek-V3, arXiv:2412.19437, section 3.3), a row, or the
whole matrix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.quantised.scales import F32, PIECE, SCALE_DTYPES, Scales
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.tensor import (
    Found,
    Stored,
    StoredTensor,
    check,
    fitting,
    wrong,
)
from bandweave.ranges import Range

_KINDS = {"F8_E4M3": "fp8", "I8": "int8"}
_SUFFIXES = ("_scale_inv", "_scale")  # both are factors


class ScaledBytes:
    """A ``Matrix`` of codes of one byte."""

    dtype = "f32"

    def __init__(self, codes: StoredTensor, scales: Scales) -> None:
        self._codes, self._scales = codes, scales
        self.name, self.shape = codes.name, codes.shape
        self.stored = (*codes.stored, scales.stored)
        kind = _KINDS[codes.entry.dtype]
        self.recipe = f"{kind} 1 in blocks of {scales.block}"
        self._widen = _fp8 if kind == "fp8" else _int8

    def read(self, rows: range, columns: Range, entry: int = 0) -> F32:
        result = np.empty((len(rows), len(columns)), np.float32)
        step = max(1, PIECE // max(1, len(columns)))
        for start in range(0, len(rows), step):
            codes = self._codes.read(rows[start : start + step], columns, entry)
            if not self._widen(codes, result[start : start + step]):
                raise wrong(self.stored[0], "holds a NaN; download the file again")
        self._scales.apply(result, rows, columns, entry)
        return result


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> ScaledBytes | None:
    """The matrix, or the stack of matrices, of that shape whose codes are the tensor ``name``."""
    stored = found.get(name)
    if stored is None or stored[1].dtype not in _KINDS:
        return None
    suffix = next((one for one in _SUFFIXES if name + one in found), None)
    if suffix is None:
        raise wrong(
            stored,
            f"is stored as {stored[1].dtype} and lacks its scales {name + _SUFFIXES[0]!r}; "
            "download the checkpoint again, or the original model",
        )
    if name + "_zero_point" in found and stored[1].dtype == "I8":
        raise wrong(stored, "has zero points, which are not read for int8; use the original model")
    rows, columns = shape[-2:]
    codes = StoredTensor(fitting(stored, shape), rows, columns)
    scales = _scales(found[name + suffix], shape, settings)
    return ScaledBytes(codes, scales)


def _scales(stored: Stored, shape: tuple[int, ...], settings: Settings) -> Scales:
    """One a block, a row or a matrix, as the shape of the scales has it."""
    *lead, rows, columns = shape
    grids: dict[tuple[int, ...], tuple[int, int]] = {}
    if settings.block is not None:
        down, across = settings.block
        grids[-(-rows // down), -(-columns // across)] = settings.block
    for row_shape in ((rows, 1), (rows,)):
        grids.setdefault(row_shape, (1, columns))
    for one in ((1, 1), (1,), ()):
        grids.setdefault(one, (rows, columns))
    shapes = [(*lead, *grid) for grid in grids]
    check(stored, SCALE_DTYPES, *shapes)
    block = grids[stored[1].shape[len(lead) :]]
    return Scales(stored, block, rows, columns)


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
