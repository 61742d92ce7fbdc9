"""Content files: what is known of the tensors in one file of a checkpoint, kept for the next start.

Knows one file's bytes; knows no folder. A file is a length of 8 bytes, that many bytes of JSON (the
key of the checkpoint's file, and tensors as ``[name, columns, size, blocks]``), for each tensor its
sums (uint64) and which of them are known (a byte each), and a checksum of all that precedes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bandweave import _native
from bandweave.content.blocks import Content, TensorContent
from bandweave.models.graph_op import SplitUnit

_MOST_BYTES = 1 << 30


def write_content(file: BinaryIO, key: str, content: Content) -> None:
    """Writes what is known of the tensors in the file of that key."""
    tensors = [
        [name, one.unit.columns, one.unit.size, len(one.sums)]
        for name, one in content.tensors.items()
    ]
    head = json.dumps({"key": key, "tensors": tensors}).encode()
    parts = [len(head).to_bytes(8, "little"), head]
    for one in content.tensors.values():
        parts += [one.sums.astype("<u8").tobytes(), one.known.astype(np.uint8).tobytes()]
    data = b"".join(parts)
    data += _checksum(data).to_bytes(8, "little")
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def read_content(path: Path, key: str) -> Content:
    """What a file knows; nothing where it cannot be read, is damaged or is another key's."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES)
        return _parse(data, key)
    except (OSError, ValueError, TypeError, KeyError):
        return Content()


def _parse(data: bytes, key: str) -> Content:
    """``ValueError`` and its like for bytes that no writer wrote."""
    if len(data) < 16 or _checksum(data[:-8]) != int.from_bytes(data[-8:], "little"):
        raise ValueError("damaged")
    at = 8 + int.from_bytes(data[:8], "little")
    head: dict[str, Any] = json.loads(data[8:at])
    if head["key"] != key:
        raise ValueError("of another file")
    content = Content()
    for name, columns, size, count in head["tensors"]:
        sums = np.frombuffer(data, "<u8", count, at).astype(np.uint64)
        known = np.frombuffer(data, np.uint8, count, at + 8 * count).astype(np.bool_)
        unit = SplitUnit(columns=bool(columns), size=int(size))
        content.tensors[str(name)] = TensorContent(unit=unit, sums=sums, known=known)
        at += 9 * count
    return content


def _checksum(data: bytes) -> int:
    return _native.checksum(np.frombuffer(data, np.uint8))
