"""Sections: the stretches of a packed matrix whose bytes do not depend on how a model is split.

Pure. Knows programs and the layout of panels (`formats/packing.py`); knows no files.

A panel holds 16 outputs over the whole of a matrix's inputs. Where outputs are split, a tensor's
rows from one multiple of 16 to another are whole panels, the same ones in every split. Where inputs
are split, quantisation groups start afresh at every unit, so that a range of units is the same run
of bytes in each of the panels. The steps of both are the blocks by which content is compared
(`content/blocks.py`). What does not fit these patterns (heads whose size is no multiple of
16, say) is a section that only the very same matrix has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.content.blocks import U64, Content, blocks_of
from bandweave.formats.block_packing import PANEL
from bandweave.programs.program import Part, Weight
from bandweave.ranges import Range

ROWS, COLUMNS, WHOLE = "rows", "columns", "whole"

Bytes = npt.NDArray[np.uint8]
Shape = Callable[[str], tuple[int, ...]]  # of a tensor by its name


@dataclass(frozen=True, kw_only=True)
class Section:
    """``range`` of the rows or columns of a tensor, the matrix's part number ``part``, which go by
    steps of ``step``, in a matrix of ``panels`` panels: from panel ``first_panel`` on (rows), or in
    each panel (columns).

    ``whole`` describes the matrix where nothing less will do; its range is one step.
    """

    part: int
    axis: str
    range: Range
    step: int
    unit: int
    inputs: int  # of the matrix
    panels: int  # of the matrix
    first_panel: int = 0
    whole: str = ""

    def blocks(self, weight: Weight, part: Range) -> list[tuple[Part, Range]]:
        """What a part of the range is packed from: parts of the weight, and which blocks of their
        tensors."""
        if self.axis == WHOLE:
            return [(one, blocks_of(one.unit, one.along)) for one in weight.parts]
        own = weight.parts[self.part]
        return [(own, blocks_of(own.unit, part))]

    def steps(self, part: Range) -> int:
        """How many steps a part of the range has."""
        return -(-len(part) // self.step)

    def width(self, weight_format: str, part: Range) -> int:
        """Bytes of a part of the range: of all its panels (rows), or in each panel (columns)."""
        if not len(part):
            return 0
        if self.axis == COLUMNS:
            return _panel_bytes(weight_format, len(part), self.unit)
        panels = self.panels if self.axis == WHOLE else -(-len(part) // PANEL)
        return panels * _panel_bytes(weight_format, self.inputs, self.unit)

    def place(self, weight_format: str, part: Range) -> tuple[int, int]:
        """Where a part of the range lies: its first byte in the matrix (rows) or in each panel
        (columns), and its ``width``."""
        before = Range(start=self.range.start, stop=part.start)
        start = self.width(weight_format, before)
        if self.axis == ROWS:
            start += self.first_panel * _panel_bytes(weight_format, self.inputs, self.unit)
        return start, self.width(weight_format, part)

    def view(self, weight_format: str, part: Range, panels: Bytes) -> Bytes:
        """A part's bytes in a matrix's ``panels``: ``[bytes]``, or ``[panels, bytes]`` of
        columns."""
        start, width = self.place(weight_format, part)
        if self.axis == COLUMNS:
            return panels.reshape(self.panels, -1)[:, start : start + width]
        return panels[start : start + width]


def section_sums(section: Section, weight: Weight, content: Content, part: Range) -> U64 | None:
    """The content sums of the steps of a part of a section; None where one is not known. All of a
    whole matrix is one step, whose sum is a digest of those of its parts."""
    found = [content.get(one.tensor, blocks) for one, blocks in section.blocks(weight, part)]
    known = [sums for sums in found if sums is not None]
    if len(known) < len(found):
        return None
    if section.axis != WHOLE:
        return known[0]
    digest = hashlib.blake2b(np.concatenate(known).astype("<u8").tobytes(), digest_size=8)
    return np.frombuffer(digest.digest(), "<u8").astype(np.uint64)


def step_runs(
    section: Section, part: Range, weight: Weight, content: Content
) -> Iterator[tuple[Range, U64 | None]]:
    """A part of a section as runs of steps whose content is known, with their sums, and of
    others."""
    sums = section_sums(section, weight, content, part)
    if sums is not None or section.axis == WHOLE:
        yield part, sums
        return
    steps = [
        Range(start=start, stop=min(start + section.step, part.stop))
        for start in range(part.start, part.stop, section.step)
    ]
    known = [section_sums(section, weight, content, step) is not None for step in steps]
    for is_known, group in groupby(zip(known, steps, strict=True), key=lambda pair: pair[0]):
        members = [step for _, step in group]
        run = Range(start=members[0].start, stop=members[-1].stop)
        yield run, section_sums(section, weight, content, run) if is_known else None


def sections(weight: Weight, shape: Shape) -> tuple[Section, ...]:
    """The sections of a matrix; together they are all of it."""
    panels = -(-weight.outputs // PANEL)
    parts = weight.parts
    if weight.unit < shape(parts[0].tensor)[1]:
        if len(parts) == 1 and _is_all_rows(parts[0], shape) and _is_units(weight, shape):
            assert parts[0].columns is not None
            return (
                Section(
                    part=0,
                    axis=COLUMNS,
                    range=parts[0].columns,
                    step=weight.unit,
                    unit=weight.unit,
                    inputs=weight.inputs,
                    panels=panels,
                ),
            )
    elif _is_panels(weight, shape):
        result, output = [], 0
        for index, part in enumerate(parts):
            result.append(
                Section(
                    part=index,
                    axis=ROWS,
                    range=part.rows,
                    step=part.unit.size,
                    unit=weight.unit,
                    inputs=weight.inputs,
                    panels=panels,
                    first_panel=output // PANEL,
                )
            )
            output += len(part.rows)
        return tuple(result)
    return (
        Section(
            part=0,
            axis=WHOLE,
            range=Range(start=0, stop=1),
            step=1,
            unit=weight.unit,
            inputs=weight.inputs,
            panels=panels,
            whole=str(parts),
        ),
    )


def missing(needed: Range, found: list[Range]) -> list[Range]:
    """What of a range no other covers, in order."""
    gaps, at = [], needed.start
    for other in sorted(found, key=lambda other: other.start):
        if other.start > at:
            gaps.append(Range(start=at, stop=min(other.start, needed.stop)))
        at = max(at, other.stop)
    if at < needed.stop:
        gaps.append(Range(start=at, stop=needed.stop))
    return [gap for gap in gaps if len(gap) > 0]


def _panel_bytes(weight_format: str, inputs: int, unit: int) -> int:
    return _native.matrix_bytes(weight_format, PANEL, inputs, unit)


def _is_all_rows(part: Part, shape: Shape) -> bool:
    return part.rows.start == 0 and part.rows.stop == shape(part.tensor)[0]


def _is_units(weight: Weight, shape: Shape) -> bool:
    """Whether the columns are whole units of the tensor."""
    (part,) = weight.parts
    assert part.columns is not None
    ends = part.columns.stop % weight.unit == 0 or part.columns.stop == shape(part.tensor)[1]
    return part.columns.start % weight.unit == 0 and ends


def _is_panels(weight: Weight, shape: Shape) -> bool:
    """Whether every part is whole panels of its tensor, in the tensor and in the matrix."""
    output = 0
    for index, part in enumerate(weight.parts):
        full = part.columns is not None and len(part.columns) == shape(part.tensor)[1]
        ends = part.rows.stop % PANEL == 0 or (
            index == len(weight.parts) - 1 and part.rows.stop == shape(part.tensor)[0]
        )
        if not full or part.rows.start % PANEL or output % PANEL or not ends:
            return False
        if part.unit.columns or part.unit.size % PANEL:
            return False
        output += len(part.rows)
    return True
