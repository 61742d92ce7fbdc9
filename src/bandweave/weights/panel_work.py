"""Work: what is left to read and pack of a matrix, in pieces that bound the memory of loading.

Knows tensor sources, sections and the native packer; knows no cache and no threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bandweave import _native
from bandweave.checkpoints.source import READ_BITS, CheckpointError, TensorSource, block_source
from bandweave.content.blocks import U64, blocks_of, sum_rows
from bandweave.formats.block_packing import PANEL
from bandweave.programs.program import Part, Weight
from bandweave.ranges import Range
from bandweave.weights.panel_sections import COLUMNS, WHOLE, Section


@dataclass(frozen=True, kw_only=True)
class Read:
    """What came of a piece of work: content sums of what was read of a tensor's blocks, from number
    ``first`` on. Those of several pieces of one block add up."""

    tensor: str
    first: int
    sums: U64


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one tensor, read at once and packed to where they belong."""

    matrix: _native.Matrix
    first_output: int
    part: Part

    def bytes(self, source: TensorSource) -> int:
        """Of the checkpoint."""
        return stored_bytes(self.part, source)

    def run(self, source: TensorSource) -> Read:
        """``CheckpointError`` names the tensor whose values cannot be used."""
        part, unit = self.part, self.part.unit
        stored = source.rows_in_file(part.tensor, part.rows, part.columns)
        sums = None
        if stored is not None:
            sums = self._packed(part, self.matrix.pack_file, *stored, len(part.rows),
                                source=source.dtype(part.tensor))  # fmt: skip
        if sums is None:  # what cannot be read from the file says so when it is read here
            values = source.read(part.tensor, part.rows, part.columns)
            sums = self._packed(part, self.matrix.pack, values,
                                source=block_source(source.dtype(part.tensor)))  # fmt: skip
            assert sums is not None
        return Read(tensor=part.tensor, first=blocks_of(unit, part.along).start, sums=sums)

    def _packed(
        self, part: Part, pack: Callable[..., U64 | None], *rows: Any, source: str
    ) -> U64 | None:
        unit = part.unit
        blocks = (0, unit.size) if unit.columns else (unit.size, 0)
        try:
            return pack(self.first_output, *rows, part.rows.start, *blocks, source=source)
        except ValueError as error:
            raise CheckpointError(f"tensor {part.tensor} {error}") from error


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of one tensor, packed beside others that are there already: ``rows`` pack them into
    ``packed``, whose panels are then put ``at`` a byte of the matrix's."""

    matrix: _native.Matrix
    packed_bytes: int
    weight_format: str
    outputs: int
    unit: int
    at: int
    part: Part
    most_bytes: int

    def bytes(self, source: TensorSource) -> int:
        return stored_bytes(self.part, source)

    def run(self, source: TensorSource) -> Read:
        assert self.part.columns is not None
        arena = _native.Arena(self.packed_bytes)
        packed = _native.Matrix(
            arena, self.weight_format, self.outputs, len(self.part.columns), self.unit
        )
        packed.clear()
        blocks = blocks_of(self.part.unit, self.part.columns)
        sums = np.zeros(len(blocks), np.uint64)
        for rows in _rows(packed, 0, self.part, source, self.most_bytes):
            sums += rows.run(source).sums
        panels = -(-self.outputs // PANEL)
        source_QX = packed.panels.reshape(panels, -1)
        width = source_QX.shape[1]
        self.matrix.panels.reshape(panels, -1)[:, self.at : self.at + width] = source_QX
        return Read(tensor=self.part.tensor, first=blocks.start, sums=sums)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """Whole rows of one tensor, read for their content alone."""

    part: Part

    def bytes(self, source: TensorSource) -> int:
        return stored_bytes(self.part, source)

    def run(self, source: TensorSource) -> Read:
        part = self.part
        first, sums = sum_rows(source, part.tensor, part.rows, part.unit)
        return Read(tensor=part.tensor, first=first, sums=sums)


Work = Rows | Columns | Unpacked


def work(
    weight: Weight,
    matrix: _native.Matrix,
    gaps: list[tuple[Section, Range]],
    source: TensorSource,
    weight_format: str,
    most_bytes: int,
) -> Iterator[Work]:
    """What fills the gaps of a matrix; each piece reads at most ``most_bytes``, or one row."""
    for section, gap in gaps:
        _pad(weight, matrix, section, gap, weight_format)
        if section.axis == WHOLE:
            output = 0
            for part in weight.parts:
                yield from _rows(matrix, output, part, source, most_bytes)
                output += part.outputs
        elif section.axis == COLUMNS:
            (part,) = weight.parts
            if gap == section.range:
                yield from _rows(matrix, 0, part, source, most_bytes)
            else:
                yield from _columns(weight, matrix, section, gap, weight_format, most_bytes)
        else:
            part = weight.parts[section.part]
            output = section.first_panel * PANEL + gap.start - section.range.start
            own = part if gap == part.rows else replace(part, rows=gap)
            yield from _rows(matrix, output, own, source, most_bytes)


def unpacked(part: Part, source: TensorSource, most_bytes: int) -> Iterator[Unpacked]:
    """What reads a part for its content alone, in pieces of at most ``most_bytes``."""
    for piece in row_pieces(part, source, most_bytes):
        yield Unpacked(part=piece)


def row_pieces(part: Part, source: TensorSource, most_bytes: int) -> Iterator[Part]:
    """A part in pieces of whole rows that take at most ``most_bytes`` as they are read, or of one
    row; a vector whole."""
    if part.columns is None:
        yield part
        return
    count = max(1, most_bytes // _row_bytes(part, source))
    if count >= len(part.rows):
        yield part
        return
    for start in range(part.rows.start, part.rows.stop, count):
        rows = Range(start=start, stop=min(start + count, part.rows.stop))
        yield replace(part, rows=rows)


def stored_bytes(part: Part, source: TensorSource) -> int:
    """Of the checkpoint, in a part of a matrix, rounded."""
    weights = len(part.rows) * (1 if part.columns is None else len(part.columns))
    return round(weights * source.item_bits(part.tensor) / 8)


def _row_bytes(part: Part, source: TensorSource) -> int:
    """In memory, of one row of a part as it is read."""
    assert part.columns is not None
    bits = READ_BITS.get(source.dtype(part.tensor)) or source.item_bits(part.tensor)
    return max(1, int(len(part.columns) * bits / 8))


def _rows(
    matrix: _native.Matrix, output: int, part: Part, source: TensorSource, most_bytes: int
) -> Iterator[Rows]:
    """Panels of 16 outputs are not shared between threads' pieces unless parts meet there; bytes of
    different outputs never overlap, so that it does not matter."""
    for piece in row_pieces(part, source, most_bytes):
        yield Rows(matrix=matrix, first_output=output, part=piece)
        output += len(piece.rows)


def _columns(
    weight: Weight,
    matrix: _native.Matrix,
    section: Section,
    gap: Range,
    weight_format: str,
    most_bytes: int,
) -> Iterator[Columns]:
    one = Range(start=gap.start, stop=min(gap.start + section.step, gap.stop))
    step = section.panels * section.width(weight_format, one)
    count = max(1, most_bytes // step) * section.step
    for start in range(gap.start, gap.stop, count):
        columns = Range(start=start, stop=min(start + count, gap.stop))
        at, width = section.place(weight_format, columns)
        yield Columns(
            matrix=matrix,
            packed_bytes=section.panels * width,
            weight_format=weight_format,
            outputs=weight.outputs,
            unit=weight.unit,
            at=at,
            part=replace(weight.parts[0], columns=columns),
            most_bytes=most_bytes,
        )


def _pad(
    weight: Weight, matrix: _native.Matrix, section: Section, gap: Range, weight_format: str
) -> None:
    """The outputs that complete the last panel are zeros, whatever was there before."""
    if weight.outputs % PANEL == 0:
        return
    size = _native.matrix_bytes(weight_format, PANEL, weight.inputs, weight.unit)
    blank = _native.Matrix(_native.Arena(size), weight_format, PANEL, weight.inputs, weight.unit)
    blank.clear()
    last = matrix.panels.reshape(section.panels, -1)[-1]
    if section.axis == COLUMNS:
        at, width = section.place(weight_format, gap)
        last[at : at + width] = blank.panels[at : at + width]
    elif gap.stop == section.range.stop:
        panels = section.panels
        if section.axis != WHOLE:
            panels = -(-len(section.range) // PANEL)
        if section.first_panel + panels == section.panels:
            last[:] = blank.panels
