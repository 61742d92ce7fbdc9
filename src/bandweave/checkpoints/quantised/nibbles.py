"""4-bit codes, two a byte, the low half first: the order of MXFP4 and of words of 8 codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.quantised.scales import F32, PIECE
from bandweave.ranges import Range

Pairs = npt.NDArray[np.uint64]


def pairs(values: npt.ArrayLike) -> Pairs:
    """``[256]``: the two float32 values, as one item, of every byte; ``values`` are those of the
    16 codes."""
    value = np.asarray(values, np.float32)
    byte = np.arange(256)
    return np.stack([value[byte & 15], value[byte >> 4]], axis=1).view(np.uint64).reshape(256)


def bytes_of(columns: Range) -> Range:
    """Where codes lie, in bytes of their row."""
    return Range(start=columns.start // 2, stop=-(-columns.stop // 2))


def values_of(
    read: Callable[[range, Range, int], npt.NDArray[np.uint8]],
    table: Pairs,
    rows: range,
    columns: Range,
    entry: int = 0,
) -> F32:
    """The values ``[rows, columns]`` of codes that ``read`` gives the bytes of."""
    result = np.empty((len(rows), len(columns)), np.float32)
    if not result.size:
        return result
    held = bytes_of(columns)
    first = columns.start - 2 * held.start
    step = max(1, PIECE // len(columns))
    for start in range(0, len(rows), step):
        codes = read(rows[start : start + step], held, entry)
        both = table[codes].view(np.float32)
        result[start : start + step] = both[:, first : first + len(columns)]
    return result
