"""The header of a GGUF file, checked: metadata, and where each tensor lies. Reads no tensors.

An own parser: the ``gguf`` package's maps the whole file, which must be here for that, and makes an
array of every text. Nothing that the header says is believed before it is checked against the file.
Knows no models.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bandweave.checkpoints.byte_file import ByteFile, open_file
from bandweave.checkpoints.gguf_cursor import Cursor
from bandweave.checkpoints.headed_file import HeadedFile, TensorEntry
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import shown

_MAGIC = b"GGUF"
_MAX_TENSORS = 200_000
_MAX_FIELDS = 10_000
_MAX_NAME_BYTES = 4096  # of a tensor or a field
_MAX_DIMS = 4
_KEPT_ITEMS = 4096  # of an array; longer ones (vocabularies) are counted only

# Scalar types of metadata: struct's letter.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_FLOAT32, _STRING, _ARRAY = 6, 8, 9


class BlockType(NamedTuple):
    """How weights of a tensor type are stored: ``weights`` of them in a block of ``bytes``."""

    name: str
    weights: int
    bytes: int


#: Tensor types by number (ggml-common.h).
BLOCK_TYPES: Mapping[int, BlockType] = {
    number: BlockType(*block)
    for number, block in {
        0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
        10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
        26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
        39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
        42: ("Q2_0", 64, 18),
    }.items()
}  # fmt: skip


class GgufArray(NamedTuple):
    """An array of metadata that is too long to be kept: its items' type, how many there are, and
    where the first one lies."""

    item: int
    length: int
    start: int


@dataclass(frozen=True, kw_only=True)
class GgufFile(HeadedFile):
    """An open file whose header has been checked.

    ``metadata``: scalars, texts and short arrays by key; of long arrays their length. ``tensors``:
    by name, shapes with the inputs last, dtypes by the type's name.
    """

    version: int
    header: bytes
    metadata: Mapping[str, Any]
    arrays: Mapping[str, GgufArray]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Opens a file and checks its header; ``CheckpointError`` where it cannot be believed."""
        file = open_file(path)
        try:
            return _read(file)
        except BaseException:
            file.close()
            raise

    def whole_metadata(self) -> dict[str, Any]:
        """All metadata, arrays in full, however long."""
        arrays = {
            key: _items(Cursor(self.file, self.header, long.start), long.item, long.length)
            for key, long in self.arrays.items()
        }
        return {**self.metadata, **arrays}


def _read(file: ByteFile) -> GgufFile:
    cursor = Cursor(file)
    path = cursor.path
    if cursor.size < 24 or bytes(cursor.numbers("B", 4)) != _MAGIC:
        raise CheckpointError(f"{path} is no GGUF file: it does not start with GGUF")
    version = cursor.number("I")
    if version & 0xFFFF == 0:
        raise CheckpointError(
            f"{path} was written for machines of the other byte order; download it again, from "
            "somewhere else"
        )
    if version not in (2, 3):
        raise CheckpointError(f"{path} is GGUF version {version}; versions 2 and 3 are read")
    num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
    if num_tensors > _MAX_TENSORS or num_fields > _MAX_FIELDS:
        raise CheckpointError(
            f"{path} claims {num_tensors} tensors and {num_fields} fields; it is damaged"
        )
    metadata: dict[str, Any] = {}
    arrays: dict[str, GgufArray] = {}
    for _ in range(num_fields):
        key = cursor.text(_MAX_NAME_BYTES)
        if key in metadata:
            raise CheckpointError(f"{path}: the field {shown(key)} stands in it twice")
        value = _value(cursor, cursor.number("I"))
        if isinstance(value, GgufArray):
            arrays[key] = value
            value = value.length
        metadata[key] = value
    described = [_described(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in (1 << bit for bit in range(21)):
        raise CheckpointError(f"{path}: an alignment of {shown(alignment)} makes no sense")
    start = -(-cursor.position // alignment) * alignment
    header = cursor.content[: cursor.position]
    return GgufFile(
        file=file,
        header_sha256=hashlib.sha256(header).digest(),
        version=version,
        header=header,
        metadata=metadata,
        arrays=arrays,
        tensors=_placed(cursor, described, start),
    )


def _placed(cursor: Cursor, described: Sequence[TensorEntry], start: int) -> dict[str, TensorEntry]:
    """The tensors, from the start of the data on: they lie in the file, beside each other."""
    path = cursor.path
    tensors: dict[str, TensorEntry] = {}
    for entry in described:
        if entry.name in tensors:
            raise CheckpointError(f"{path}: tensor {shown(entry.name)} stands in it twice")
        placed = entry._replace(start=start + entry.start, stop=start + entry.stop)
        if placed.stop > cursor.size:
            raise CheckpointError(
                f"{path} is cut short: tensor {shown(entry.name)} ends at byte {placed.stop}, the "
                f"file at {cursor.size}; download it again"
            )
        tensors[entry.name] = placed
    end, previous = start, ""
    for placed in sorted(tensors.values(), key=lambda entry: (entry.start, entry.stop)):
        if placed.start < end:
            raise CheckpointError(
                f"{path}: tensor {shown(placed.name)} starts at byte {placed.start}, inside of "
                f"{shown(previous)}, which ends at {end}; the file is damaged"
            )
        end, previous = placed.stop, placed.name
    return tensors


def _described(cursor: Cursor) -> TensorEntry:
    """A tensor; its place is counted from the start of the data."""
    name = cursor.text(_MAX_NAME_BYTES)
    where = f"{cursor.path}: tensor {shown(name)}"
    num_dims = cursor.number("I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise CheckpointError(f"{where} has {num_dims} dimensions; it is damaged")
    shape = cursor.numbers("Q", num_dims)
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in BLOCK_TYPES:
        raise CheckpointError(
            f"{where} has the type {kind}, which is not known; download another version of the "
            "model, Q4_K_M say"
        )
    block = BLOCK_TYPES[kind]
    count = math.prod(shape)
    if shape[0] % block.weights or count >= 1 << 60 or offset >= 1 << 62:
        raise CheckpointError(f"{where} of shape {shape} cannot be {block.name}")
    stop = offset + count // block.weights * block.bytes
    return TensorEntry(name, block.name, tuple(reversed(shape)), offset, stop)


def _value(cursor: Cursor, kind: int) -> Any:
    """A value; of an array that is too long to be kept where it is."""
    if kind == _FLOAT32:
        return cursor.real()
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
    if item not in _SCALARS and item != _STRING:
        raise CheckpointError(f"{cursor.path}: an array of type {item} is not supported")
    if count <= _KEPT_ITEMS:
        cursor.keep(count)
        return _items(cursor, item, count)
    start = cursor.position
    cursor.skip(count, _SCALARS.get(item))
    return GgufArray(item, count, start)


def _items(cursor: Cursor, item: int, count: int) -> list[Any]:
    if item == _STRING:
        return cursor.texts(count)
    return cursor.numbers(_SCALARS[item], count)
