"""One safetensors file: its checked header, and reads of byte ranges of it.

An own small parser, because a node reads byte ranges and never whole tensors. Nothing that the
header says is believed before it is checked against the file. Knows no models.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from bandweave import files
from bandweave.checkpoints.byte_file import ByteFile, open_file
from bandweave.checkpoints.headed_file import HeadedFile, TensorEntry
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable, shown

MAX_HEADER_BYTES = 100_000_000  # as the format's own library has it
_MAX_DIMS = 16
_LFS_POINTER = b"version https://git-lfs"

# Bits an element of every dtype that the format names.
_DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SafetensorsFile(HeadedFile):
    """An open file whose header, with its length field, has been checked."""

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Opens a file and checks its header; ``CheckpointError`` where it cannot be believed."""
        file = open_file(path)
        try:
            header = _header_bytes(file)
            return cls(
                file=file,
                header_sha256=hashlib.sha256(header).digest(),
                tensors=_entries(path, _parsed(path, header[8:]), len(header), file.size),
            )
        except BaseException:
            file.close()
            raise


def encode_header(tensors: Sequence[tuple[str, str, Sequence[int]]]) -> bytes:
    """The header, with its length field, of a file that holds ``(name, dtype, shape)`` tensors
    one after the other in this order."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, dtype, shape in tensors:
        stop = start + math.prod(shape) * _DTYPE_BITS[dtype] // 8
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    return struct.pack("<Q", len(text)) + text


def _header_bytes(file: ByteFile) -> bytes:
    where, size = printable(file.path), file.size
    start = bytearray(min(size, len(_LFS_POINTER)))
    file.read_into(memoryview(start), 0)
    if start == _LFS_POINTER:
        raise CheckpointError(
            f"{where} is a Git LFS pointer instead of the file; run `git lfs pull` in its folder"
        )
    if size < 8:
        raise CheckpointError(
            f"{where} is cut short: expected at least 8 bytes, found {size}; download it again"
        )
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{where} is no safetensors file: its header would have {length} bytes, at most "
            f"{MAX_HEADER_BYTES} are allowed"
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{where} is cut short: expected at least {8 + length} bytes (its header), found "
            f"{size}; download it again"
        )
    header = bytearray(8 + length)
    file.read_into(memoryview(header), 0)
    return bytes(header)


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    content = files.parse_object(text, f"{printable(path)}: the header", CheckpointError)
    content.pop("__metadata__", None)
    return content


def _entries(
    path: Path, content: Mapping[str, Any], data_start: int, size: int
) -> dict[str, TensorEntry]:
    where = printable(path)
    entries = {
        name: _usual(name, field, data_start) or _entry(where, name, field, data_start)
        for name, field in content.items()
    }
    end, previous = data_start, ""
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start < end:
            before = shown(previous) if previous else "the header"
            raise CheckpointError(
                f"{where}: tensor {shown(entry.name)} starts at byte {entry.start}, inside of "
                f"{before}, which ends at {end}; the file is damaged"
            )
        if entry.start > end:
            raise CheckpointError(
                f"{where}: {entry.start - end} bytes before tensor {shown(entry.name)} belong to "
                "no tensor; the file is damaged"
            )
        end, previous = entry.stop, entry.name
    if end > size:
        raise CheckpointError(
            f"{where} is cut short: expected {end} bytes, found {size}; download it again"
        )
    if end < size:
        raise CheckpointError(
            f"{where}: expected {end} bytes, found {size}: {size - end} bytes belong to no tensor; "
            "the file is damaged, download it again"
        )
    return entries


def _usual(name: str, field: Any, data_start: int) -> TensorEntry | None:
    """The entry of a sound matrix, as nearly all are; None for ``_entry`` to look at. In a quarter
    of its time: a model has 100,000."""
    try:
        dtype, (rows, columns), (start, stop) = (
            field["dtype"], field["shape"], field["data_offsets"],
        )  # fmt: skip
        bits = _DTYPE_BITS[dtype]
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    numbers = type(rows) is type(columns) is type(start) is type(stop) is int
    if not numbers or not (0 <= rows < 1 << 31 and 0 <= columns < 1 << 31 and 0 <= start <= stop):
        return None
    if rows * columns * bits != 8 * (stop - start) or stop >= 1 << 63:
        return None
    return TensorEntry(name, dtype, (rows, columns), data_start + start, data_start + stop)


def _entry(file: str, name: str, field: Any, data_start: int) -> TensorEntry:
    def wrong(how: str) -> CheckpointError:
        return CheckpointError(f"{file}: tensor {shown(name)} {how}")

    if not isinstance(field, dict):
        raise wrong(f"is described by {type(field).__name__}, not an object")
    dtype, shape = field.get("dtype"), field.get("shape")
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise wrong(f"has the unknown dtype {shown(dtype)}")
    if not _naturals(shape) or len(shape) > _MAX_DIMS:
        raise wrong(f"has the shape {shown(shape)}, which is none")
    offsets = field.get("data_offsets")
    if not _naturals(offsets) or len(offsets) != 2:
        raise wrong(f"has the offsets {shown(offsets)}, which are none")
    start, stop = offsets
    bits = math.prod(shape) * _DTYPE_BITS[dtype]
    if bits != 8 * (stop - start):
        raise wrong(
            f"of shape {shown(shape)} and dtype {dtype} needs {shown(-(-bits // 8))} bytes, but "
            f"its offsets {start} to {stop} hold {stop - start}"
        )
    return TensorEntry(name, dtype, tuple(shape), data_start + start, data_start + stop)


def _naturals(value: Any) -> TypeGuard[list[int]]:
    """Whether a value is a list of integers from 0 to 2^63."""
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110  all() takes twice the time
        if type(item) is not int or not 0 <= item < 1 << 63:
            return False
    return True
