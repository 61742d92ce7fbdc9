"""Dump: a one-node program with its packed weights in one file, for ``bandweave-runner``.

The file, version 2, all numbers little-endian; an *int* is int32, a *list* a uint32 count and then
its elements, a *piece* where bytes lie: offset, size and checksum (core/checksum.h), uint64 each:

==============  ===================================================================================
header          64 bytes: ``BANDWEAV``, file version and numerics version (int), then the
                description as a piece, then zeros. It is written last, so that a file that was not
                finished is known as such.
pieces          from byte 64 on, each at a multiple of 64: packed panels (formats/packing.py),
                float32 vectors, the embedding table as the checkpoint stores it
description     the program as a list of bytes (programs/encoding.py); ints whether the KV cache is
                f16, context (tokens), rows of a step at most; list of int end tokens; for each of
                the program's weights an int format (its place in ``FORMATS``) and a piece; a piece
                for each of its vectors; int stored type of the embedding (f32 0, bf16 1, f16 2; a
                table of GGUF's blocks is widened) and a piece
==============  ===================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bandweave import NUMERICS_VERSION, _native
from bandweave.checkpoints.source import TensorSource, block_source, widen
from bandweave.formats.names import BLOCK_FORMATS
from bandweave.programs.encoding import encode, ints
from bandweave.programs.program import Program
from bandweave.ranges import Range
from bandweave.weights.packed import Weights
from bandweave.whole_file import whole_file

DUMP_VERSION = 2

#: In the order of the native module's ``Format``.
FORMATS = ("f32", "bf16", "q8", "q4", "mxfp4", "nf4", "ulaw4", *BLOCK_FORMATS)

_MAGIC = b"BANDWEAV"
_HEADER_BYTES = 64
_STORED = {"f32": 0, "bf16": 1, "f16": 2}


@dataclass(frozen=True, kw_only=True)
class DumpOptions:
    """How the dumped program runs: what ``ExecutorOptions`` and a request say otherwise."""

    weight_format: str
    kv_format: str
    context: int
    max_rows: int
    end_tokens: tuple[int, ...]


def write_dump(
    path: Path, program: Program, weights: Weights, source: TensorSource, options: DumpOptions
) -> int:
    """Writes the file, whole or not at all, and returns its size in bytes. ``OSError`` where that
    fails.

    ``program`` must be the whole model on one node; ``source`` has its embedding table.
    """
    assert program.num_nodes == 1, "the runner has no peers"
    with whole_file(path) as file:
        file.write(bytes(_HEADER_BYTES))
        description = _describe(_Pieces(file), program, weights, source, options)
        piece = _Pieces(file).add(np.frombuffer(description, np.uint8))
        size = file.tell()
        file.seek(0)
        file.write(struct.pack("<8sii", _MAGIC, DUMP_VERSION, NUMERICS_VERSION) + piece)
        return size


class _Pieces:
    """The file's pieces, written one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, data: np.ndarray) -> bytes:
        """Writes an array's bytes; where they lie, packed."""
        return self.join([data])

    def join(self, parts: Iterable[np.ndarray]) -> bytes:
        """Writes arrays as one piece. Checksums are of a whole, so all of it is in memory."""
        self._file.write(bytes(-self._file.tell() % 64))
        offset = self._file.tell()
        arrays = [np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts]
        data = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        self._file.write(data.data)
        return struct.pack("<QQQ", offset, data.nbytes, _native.checksum(data))


def _describe(
    pieces: _Pieces,
    program: Program,
    weights: Weights,
    source: TensorSource,
    options: DumpOptions,
) -> bytes:
    encoded = encode(program)
    out = bytearray(struct.pack("<I", len(encoded)) + encoded)
    out += ints(options.kv_format == "f16", options.context, options.max_rows)
    out += struct.pack("<I", len(options.end_tokens)) + ints(*options.end_tokens)
    for name, weight in program.weights.items():
        panels, own_format = weights.matrices[name].panels, weight.format_in(options.weight_format)
        out += ints(FORMATS.index(own_format)) + pieces.add(panels)
    for name in program.vectors:
        out += pieces.add(weights.vectors[name].astype("<f4"))
    table = source.read("embed_tokens", Range(start=0, stop=program.vocab_size))
    stored_as = source.dtype("embed_tokens")
    if block_source(stored_as):
        table, stored_as = widen(table, stored_as), "f32"
    return bytes(out) + ints(_STORED[stored_as]) + pieces.add(table)
