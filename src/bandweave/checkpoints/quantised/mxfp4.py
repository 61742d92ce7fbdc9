"""MXFP4 (OCP Microscaling Formats 1.0) as gpt-oss stores its experts: ``X_blocks``, bytes of two
e2m1 codes, and ``X_scales``, an E8M0 exponent for every 32 of a row.

A weight is its code's value times its block's power of two.
"""

from __future__ import annotations

from bandweave.checkpoints.quantised import nibbles
from bandweave.checkpoints.quantised.scales import F32, Scales
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.tensor import (
    Found,
    StoredTensor,
    check,
    companion,
    fitting,
    wrong,
)
from bandweave.ranges import Range

_BLOCK = 32
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = nibbles.pairs([*_E2M1, *(-value for value in _E2M1)])


class Mxfp4:
    """A ``Matrix`` of blocks of 32."""

    dtype = "f32"
    recipe = "mxfp4 1"
    stored_as = "mxfp4"

    def __init__(self, blocks: StoredTensor, scales: Scales, shape: tuple[int, ...]) -> None:
        self._blocks, self._scales, self.shape = blocks, scales, shape
        self.name = blocks.name
        self.stored = (*blocks.stored, scales.stored)

    def read(self, rows: range, columns: Range, entry: int = 0) -> F32:
        result = nibbles.values_of(self._blocks.read, _VALUES, rows, columns, entry)
        self._scales.apply(result, rows, columns, entry)
        return result


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> Mxfp4 | None:
    """The matrix, or the stack of matrices, of that shape that is stored as ``name`` blocks."""
    del settings
    stored = found.get(name + "_blocks")
    if stored is None:
        return None
    *lead, rows, columns = shape
    if columns % _BLOCK:
        raise wrong(
            stored,
            f"holds blocks of {_BLOCK}, of which rows of {columns} weights are no multiple; is it "
            "the config of these weights?",
        )
    count = columns // _BLOCK
    check(fitting(stored, (*lead, rows, count, _BLOCK // 2)), ("U8",), stored[1].shape)
    scale = companion(found, stored, name + "_scales", "scales")
    check(scale, ("U8", "F8_E8M0"), (*lead, rows, count))
    scales = Scales(scale, (1, _BLOCK), rows, columns)
    return Mxfp4(StoredTensor(stored, rows, columns // 2), scales, shape)
