"""Panels in memory: what a node holds already of a matrix of another split.

The stretches are those of the cache on disk (`weights.panel_sections`): whole panels of 16 outputs,
or runs of units in each panel. Knows ranges; knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.programs.program import Weight
from bandweave.ranges import Range
from bandweave.weights.panel_sections import COLUMNS, WHOLE, Bytes, Section


def take_kept(
    weight: Weight,
    section: Section,
    panels: Bytes,
    before: Weight,
    sections: Sequence[Section],
    kept: Bytes,
    weight_format: str,
    filled: Sequence[Sequence[Range]],
) -> list[Range]:
    """Copies what the panels ``kept`` of the weight ``before``, with its ``sections``, have of a
    section of ``weight`` into its ``panels``; the parts of the section that were copied.
    ``filled``: what of each of those sections is in its place."""
    found: list[Range] = []
    for other, own in zip(sections, filled, strict=True):
        common = _common(weight, section, before, other)
        for part in () if common is None else _within(common, own):
            target = section.view(weight_format, part, panels)
            target[...] = other.view(weight_format, part, kept)
            found.append(part)
    return found


def _within(whole: Range, parts: Sequence[Range]) -> list[Range]:
    """What of a range is in any of those."""
    cut = [
        Range(start=max(whole.start, part.start), stop=min(whole.stop, part.stop))
        for part in parts
        if part.start < whole.stop and whole.start < part.stop
    ]
    return [part for part in cut if len(part)]


def bytes_of(section: Section, part: Range, weight_format: str) -> int:
    """Packed bytes of a part of a section."""
    rows = section.panels if section.axis == COLUMNS else 1
    return rows * section.width(weight_format, part)


def _common(weight: Weight, section: Section, before: Weight, other: Section) -> Range | None:
    """What two sections have in common, byte for byte; None for nothing."""
    alike = (section.axis, section.step, section.unit, section.whole) == (
        other.axis, other.step, other.unit, other.whole,
    )  # fmt: skip
    if not alike or weight.parts[section.part].tensor != before.parts[other.part].tensor:
        return None
    if section.axis == WHOLE:
        return section.range
    start = max(section.range.start, other.range.start)
    stop = min(section.range.stop, other.range.stop)
    if start >= stop:
        return None
    return Range(start=start, stop=stop)
