"""The header of a GGUF file, checked: metadata, and where each tensor lies. Reads no tensors.

Nothing that the header says is believed before it is checked against the file. Knows no models.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bandweave import files
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable, shown

_MAGIC = b"GGUF"
_MAX_TENSORS = 200_000
_MAX_FIELDS = 10_000
_MAX_NAME_BYTES = 4096  # of a tensor or a field
_MAX_TEXT_BYTES = 16_000_000  # of a text, and of all texts that are kept
_MAX_TEXTS = 2_000_000  # in arrays, of all fields together
_MAX_DIMS = 4
_KEPT_ITEMS = 4096  # of an array; longer ones (vocabularies) are counted only

# Scalar types of metadata: struct's letter.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9

#: Tensor types: name, weights a block, bytes a block (ggml-common.h).
_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """Bytes ``[start, stop)`` of the file. ``shape`` has the inputs last, as in C order."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """``metadata``: scalars, texts and short arrays by key; of long arrays their length."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @classmethod
    def read(cls, path: Path) -> GgufHeader:
        """Reads and checks a header; ``CheckpointError`` where it cannot be believed."""
        descriptor = files.open_regular(path, CheckpointError)
        with os.fdopen(descriptor, "rb") as file:
            cursor = _Cursor(printable(path), file, os.fstat(descriptor).st_size)
            try:
                return _read(path, cursor)
            except OSError as error:
                raise CheckpointError(f"{cursor.path} cannot be read: {error.strerror}") from error


class _Cursor:
    def __init__(self, path: str, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.position = path, file, size, 0
        self._text_bytes = self._texts = 0

    def take(self, count: int) -> bytes:
        if self.position + count > self.size:
            raise CheckpointError(
                f"{self.path} is cut short: its header goes beyond byte {self.size}; download it "
                "again"
            )
        content = self.file.read(count)
        if len(content) != count:
            raise CheckpointError(f"{self.path} became shorter while it was read")
        self.position += count
        return content

    def skip(self, count: int) -> None:
        if self.position + count > self.size:
            self.take(count)
        self.file.seek(count, 1)
        self.position += count

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def text(self, most: int = _MAX_TEXT_BYTES) -> str:
        """The next text; all of them together must not fill the memory."""
        length = self.number("Q")
        self._text_bytes += length
        if length > most or self._text_bytes > _MAX_TEXT_BYTES:
            raise CheckpointError(f"{self.path}: a text of {length} bytes in the header; damaged")
        return self.take(length).decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        """Goes past the texts of an array."""
        self._texts += count
        if self._texts > _MAX_TEXTS:
            raise CheckpointError(f"{self.path}: arrays of {self._texts} texts; it is damaged")
        for _ in range(count):
            self.skip(self.number("Q"))


def _read(file: Path, cursor: _Cursor) -> GgufHeader:
    path = cursor.path
    if cursor.size < 24 or cursor.take(4) != _MAGIC:
        raise CheckpointError(f"{path} is no GGUF file: it does not start with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        raise CheckpointError(f"{path} is GGUF version {version}; versions 2 and 3 are read")
    num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
    if num_tensors > _MAX_TENSORS or num_fields > _MAX_FIELDS:
        raise CheckpointError(
            f"{path} claims {num_tensors} tensors and {num_fields} fields; it is damaged"
        )
    metadata: dict[str, Any] = {}
    for _ in range(num_fields):
        key = cursor.text(_MAX_NAME_BYTES)
        if key in metadata:
            raise CheckpointError(f"{path}: the field {shown(key)} stands in it twice")
        metadata[key] = _value(cursor, cursor.number("I"))
    described = [_described(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise CheckpointError(f"{path}: an alignment of {shown(alignment)} makes no sense")
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, type_name, shape, offset, size in described:
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {shown(name)} stands in it twice")
        if start + offset + size > cursor.size:
            raise CheckpointError(
                f"{path} is cut short: tensor {shown(name)} ends at byte {start + offset + size}, "
                f"the file at {cursor.size}; download it again"
            )
        tensors[name] = GgufTensor(
            name=name, type=type_name, shape=shape, start=start + offset,
            stop=start + offset + size,
        )  # fmt: skip
    return GgufHeader(path=file, version=version, metadata=metadata, tensors=tensors)


def _described(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    name = cursor.text(_MAX_NAME_BYTES)
    where = f"{cursor.path}: tensor {shown(name)}"
    num_dims = cursor.number("I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise CheckpointError(f"{where} has {num_dims} dimensions; it is damaged")
    shape = tuple(cursor.number("Q") for _ in range(num_dims))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in _TYPES:
        raise CheckpointError(f"{where} has the unknown type {kind}")
    type_name, block, block_bytes = _TYPES[kind]
    count = math.prod(shape)
    if shape[0] % block or count >= 1 << 60:
        raise CheckpointError(f"{where} of shape {list(shape)} cannot be {type_name}")
    return name, type_name, tuple(reversed(shape)), offset, count // block * block_bytes


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise CheckpointError(f"{cursor.path}: a field has the unknown type {kind}; it is damaged")
    item, count = cursor.number("I"), cursor.number("Q")
    if count > cursor.size:
        raise CheckpointError(
            f"{cursor.path}: an array of {count} items; it is damaged or cut short"
        )
    if item in _SCALARS:
        letter = _SCALARS[item]
        if count > _KEPT_ITEMS:
            cursor.skip(count * struct.calcsize("<" + letter))
            return count
        return [cursor.number(letter) for _ in range(count)]
    if item != _STRING:
        raise CheckpointError(f"{cursor.path}: an array of type {item} is not supported")
    if count <= _KEPT_ITEMS:
        return [cursor.text() for _ in range(count)]
    cursor.skip_texts(count)
    return count
