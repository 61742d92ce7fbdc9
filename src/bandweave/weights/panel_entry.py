"""Entry files: a range of one tensor, packed, with checksums by which parts can be trusted.

Knows one file's bytes; knows no folder and no quota. A file is a header of 4096 bytes (JSON, zeros,
a checksum of what precedes it), a table of two numbers for each step of the range, filled up to a
multiple of 4096, and the panels' bytes: those of a range of rows one after the other, those of a
range of columns panel by panel. The numbers are the checksum of the step's panels and the content
sum of what they were packed from (`content/blocks.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.content.blocks import U64
from bandweave.ranges import Range
from bandweave.weights.panel_sections import COLUMNS, Section

HEADER_BYTES = 4096
_PIECE_BYTES = 64 << 20  # read and written at a time

Bytes = npt.NDArray[np.uint8]


class DamagedError(ValueError):
    """A file whose bytes are not those that were written, or not under that name."""


class OtherContentError(ValueError):
    """A sound file, packed from other weights."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself. ``name`` is its own, which holds the key of what it may be taken
    for; ``model``, ``weight`` and ``weight_format`` are for people."""

    name: str
    model: str
    weight: str
    weight_format: str
    start: int
    stop: int
    num_bytes: int
    checksum: int
    table_checksum: int

    @classmethod
    def read(cls, descriptor: int) -> Header:
        """``DamagedError`` for anything but a header."""
        raw = os.pread(descriptor, HEADER_BYTES, 0)
        if len(raw) != HEADER_BYTES or _checksum(raw[:-8]) != int.from_bytes(raw[-8:], "little"):
            raise DamagedError("no header")
        try:
            return cls(**json.loads(raw[:-8].rstrip(b"\0")))
        except (ValueError, TypeError) as error:
            raise DamagedError("a header of another kind") from error

    def to_bytes(self) -> bytes:
        """``ValueError`` where the names are too long."""
        text = json.dumps(vars(self)).encode()
        if len(text) > HEADER_BYTES - 8:
            raise ValueError(f"a header of {len(text)} bytes")
        text = text.ljust(HEADER_BYTES - 8, b"\0")
        return text + _checksum(text).to_bytes(8, "little")


def entry_bytes(section: Section, part: Range, weight_format: str) -> int:
    """Bytes of a file that holds a part of a section."""
    rows = section.panels if section.axis == COLUMNS else 1
    table = _table_bytes(section.steps(part))
    return HEADER_BYTES + table + rows * section.width(weight_format, part)


def write_entry(
    file: BinaryIO,
    section: Section,
    part: Range,
    panels: Bytes,
    sums: U64,
    names: Mapping[str, str],
) -> None:
    """Writes a part of a section of the matrix ``panels``, packed from steps with these content
    sums.

    ``names``: the header's ``name``, ``model``, ``weight`` and ``weight_format``.
    """
    data = section.view(names["weight_format"], part, panels)
    data = np.ascontiguousarray(data).reshape(-1)
    table = _table(section, names["weight_format"], part, data, sums)
    header = Header(
        start=part.start,
        stop=part.stop,
        num_bytes=data.nbytes,
        checksum=_native.checksum(data),
        table_checksum=_checksum(table),
        **names,
    )
    for piece in (header.to_bytes(), table, data.data):
        view = memoryview(piece)
        while view:
            view = view[file.write(view[:_PIECE_BYTES]) or 0 :]


def read_entry(
    path: Path, section: Section, part: Range, panels: Bytes, sums: U64, weight_format: str
) -> None:
    """Fills a part of a section, whose steps have these content sums, from a file that holds it,
    and perhaps more.

    ``DamagedError`` where the bytes cannot be trusted, ``OtherContentError`` where they were packed
    from other weights, ``OSError`` where they cannot be read; what is in the part then is anything.
    """
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        header = Header.read(descriptor)
        if header.name != path.name:
            raise DamagedError(f"{header.name} under another name")
        held = Range(start=header.start, stop=header.stop)
        width = section.width(weight_format, held)
        rows = section.panels if section.axis == COLUMNS else 1
        inside = held.start <= part.start and part.stop <= held.stop
        if not inside or header.num_bytes != width * rows or header.weight_format != weight_format:
            raise DamagedError(f"a header for {held} where {part} was promised")
        table_bytes = _table_bytes(section.steps(held))
        target = section.view(weight_format, part, panels)
        table = os.pread(descriptor, table_bytes, HEADER_BYTES)
        if len(table) != table_bytes or _checksum(table) != header.table_checksum:
            raise DamagedError("a damaged table")
        first = (part.start - held.start) // section.step
        steps = np.frombuffer(table, "<u8")[: 2 * section.steps(held)].reshape(-1, 2)
        checksums, found_sums = steps[first : first + section.steps(part)].T
        if not np.array_equal(found_sums, sums):
            raise OtherContentError(path.name)
        start = section.width(weight_format, Range(start=held.start, stop=part.start))
        data_at = HEADER_BYTES + table_bytes
        if section.axis != COLUMNS or (part == held and target.flags.c_contiguous):
            _read_into(descriptor, target.reshape(-1), data_at + start)
        else:
            for row, line in enumerate(target):
                _read_into(descriptor, line, data_at + row * width + start)
        if part == held:
            whole = np.ascontiguousarray(target).reshape(-1)
            if _native.checksum(whole) != header.checksum:
                raise DamagedError("damaged panels")
            return
    found = _checksums(section, weight_format, part, target)
    if not np.array_equal(checksums, found):
        raise DamagedError("damaged panels")


def _checksums(
    section: Section, weight_format: str, part: Range, data: Bytes
) -> npt.NDArray[np.uint64]:
    """One a step of a part whose bytes are ``data``, as ``Section.view`` gives them."""
    sums = []
    for start in range(part.start, part.stop, section.step):
        step = Range(start=start, stop=min(start + section.step, part.stop))
        at = section.width(weight_format, Range(start=part.start, stop=start))
        width = section.width(weight_format, step)
        sums.append(_native.checksum(np.ascontiguousarray(data[..., at : at + width]).reshape(-1)))
    return np.array(sums, np.uint64)


def _table(section: Section, weight_format: str, part: Range, data: Bytes, sums: U64) -> bytes:
    shaped = data.reshape(section.panels, -1) if section.axis == COLUMNS else data
    steps = np.stack([_checksums(section, weight_format, part, shaped), sums], axis=1)
    return steps.astype("<u8").tobytes().ljust(_table_bytes(section.steps(part)), b"\0")


def _table_bytes(steps: int) -> int:
    return -(-16 * steps // HEADER_BYTES) * HEADER_BYTES


def _checksum(data: bytes) -> int:
    return _native.checksum(np.frombuffer(data, np.uint8))


def _read_into(descriptor: int, target: Bytes, offset: int) -> None:
    view = target.data
    while view:
        count = os.preadv(descriptor, [view[:_PIECE_BYTES]], offset)
        if count == 0:
            raise DamagedError("the file is too short")
        view, offset = view[count:], offset + count
