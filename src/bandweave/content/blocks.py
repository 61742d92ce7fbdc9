"""Content: sums that tell whether copies of a checkpoint hold the same bytes, block by block.

A block is a split unit of a tensor (``models.graph.SplitUnit``): no node ever reads a part of one,
so that nodes of any two splits can compare what they read. Its sum has 64 bits and is additive over
rows (native/kernels/content_sums.h). Knows tensors by name; knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.source import TensorSource, block_source
from bandweave.models.graph_op import SplitUnit
from bandweave.ranges import Range

U64 = npt.NDArray[np.uint64]

_READ_BYTES = 1 << 20  # what stays in a processor's own cache between reading and adding up


@dataclass(frozen=True, kw_only=True)
class TensorContent:
    """What is known of one tensor: ``sums`` of all its blocks, right where ``known``."""

    unit: SplitUnit
    sums: U64
    known: npt.NDArray[np.bool_]

    @classmethod
    def unknown(cls, unit: SplitUnit, shape: tuple[int, ...]) -> TensorContent:
        """Of a tensor of that shape, nothing."""
        count = num_blocks(unit, shape)
        sums, known = np.zeros(count, np.uint64), np.zeros(count, np.bool_)
        return cls(unit=unit, sums=sums, known=known)


class Content:
    """What is known of a checkpoint's tensors, by name."""

    def __init__(self, tensors: Mapping[str, TensorContent] | None = None) -> None:
        self.tensors: dict[str, TensorContent] = dict(tensors or {})

    def learn(
        self, name: str, unit: SplitUnit, shape: tuple[int, ...], first: int, sums: U64
    ) -> None:
        """The sums of a tensor's blocks from number ``first`` on."""
        one = self.tensors.get(name)
        if one is None:
            one = self.tensors[name] = TensorContent.unknown(unit, shape)
        one.sums[first : first + len(sums)] = sums
        one.known[first : first + len(sums)] = True

    def get(self, name: str, blocks: Range) -> U64 | None:
        """The sums of a range of blocks; None where one of them is not known."""
        one = self.tensors.get(name)
        if one is None or not one.known[blocks.start : blocks.stop].all():
            return None
        return one.sums[blocks.start : blocks.stop]

    def update(self, other: Content) -> None:
        """Adds what another knows; tensors that are cut otherwise there are left out."""
        for name, theirs in other.tensors.items():
            one = self.tensors.get(name)
            if one is None:
                self.tensors[name] = TensorContent(
                    unit=theirs.unit, sums=theirs.sums.copy(), known=theirs.known.copy()
                )
            elif one.unit == theirs.unit and len(one.sums) == len(theirs.sums):
                one.sums[theirs.known] = theirs.sums[theirs.known]
                one.known[theirs.known] = True

    def runs(self) -> Iterator[tuple[str, SplitUnit, int, U64]]:
        """Known blocks as runs without gaps: tensor, unit, number of the first, sums."""
        for name, one in self.tensors.items():
            if one.known.all():  # as it nearly always is on one node
                yield name, one.unit, 0, one.sums
                continue
            for run in runs_of(one.known):
                yield name, one.unit, run.start, one.sums[run.start : run.stop]


def runs_of(flags: npt.NDArray[np.bool_]) -> list[Range]:
    """Where flags are set, as ranges without gaps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]])))
    return [Range(start=start, stop=stop) for start, stop in edges.reshape(-1, 2).tolist()]


def num_blocks(unit: SplitUnit, shape: tuple[int, ...]) -> int:
    """Blocks of a tensor of that shape."""
    return -(-shape[1 if unit.columns else 0] // unit.size)


def blocks_of(unit: SplitUnit, part: Range) -> Range:
    """The blocks of a range of rows, or of columns where those are the unit."""
    return Range(start=part.start // unit.size, stop=-(-part.stop // unit.size))


def block_bytes(unit: SplitUnit, shape: tuple[int, ...], item_bits: float) -> npt.NDArray[np.int64]:
    """Bytes of every block of a tensor as it is read, ``[blocks]``."""
    extent = shape[1 if unit.columns else 0]
    other = int(np.prod(shape)) // extent
    sizes = np.full(num_blocks(unit, shape), unit.size, np.int64)
    sizes[-1] = extent - unit.size * (len(sizes) - 1)
    return (sizes * (other * item_bits / 8)).astype(np.int64)


def run_bytes(
    unit: SplitUnit, shape: tuple[int, ...], item_bits: float, first: int, count: int
) -> int:
    """Bytes of some blocks of a tensor as it is read: the sum of those of ``block_bytes``."""
    extent = shape[1 if unit.columns else 0]
    each = math.prod(shape) // extent * item_bits / 8
    whole = min(count, extent // unit.size - first)
    rest = extent % unit.size if whole < count else 0
    return int(unit.size * each) * whole + int(rest * each)


def sum_values(values: npt.NDArray[np.generic], first_row: int, unit: SplitUnit, dtype: str) -> U64:
    """The sums of what was read of a tensor of a dtype: rows from ``first_row`` on, or columns from
    the start of a block on. Sums of several reads of one block add up modulo 2^64."""
    source = block_source(dtype)
    if unit.columns:
        return _native.content_sums(values, first_row, block_columns=unit.size, source=source)
    return _native.content_sums(values, first_row, block_rows=unit.size, source=source)


def sum_rows(source: TensorSource, name: str, rows: Range, unit: SplitUnit) -> tuple[int, U64]:
    """Reads whole rows of a tensor for their content alone: the number of the first block that
    they belong to, and the sums of what they are of it and of those that follow."""
    shape = source.shape(name)
    blocks = Range(start=0, stop=num_blocks(unit, shape))
    if not unit.columns:
        blocks = blocks_of(unit, rows)
    total = np.zeros(len(blocks), np.uint64)
    width = shape[1] if len(shape) == 2 else 1
    count, dtype = max(1, _READ_BYTES // (4 * width)), source.dtype(name)
    for start in range(rows.start, rows.stop, count):
        some = Range(start=start, stop=min(start + count, rows.stop))
        sums = sum_values(source.read(name, some), some.start, unit, dtype)
        at = 0 if unit.columns else some.start // unit.size - blocks.start
        total[at : at + len(sums)] += sums
    return blocks.start, total
