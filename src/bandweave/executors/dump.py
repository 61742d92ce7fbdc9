"""Dump: a one-node program with its packed weights in one file, for ``bandweave-runner``.

The file, version 1, all numbers little-endian; an *int* is int32, a *list* a uint32 count and then
its elements, a *piece* where bytes lie: offset, size and checksum (core/checksum.h), uint64 each:

==============  ===================================================================================
header          64 bytes: ``BANDWEAV``, file version and numerics version (int), then the
                description as a piece, then zeros. It is written last, so that a file that was not
                finished is known as such.
pieces          from byte 64 on, each at a multiple of 64: packed panels (formats/packing.py),
                float32 vectors, the embedding table as the checkpoint stores it
description     ints hidden_size, vocab_size, cache layers, KV heads, head_dim, whether the KV cache
                is f16, context (tokens), rows of a step at most; list of float64 ``inv_freq``; list
                of int end tokens; then the lists of
  buffers       ints width, whether a grid, whether of rows that ask for logits
  matrices      ints format (f32 0, bf16 1, q8 2, q4 3), inputs, unit, outputs; a piece
  vectors       int size; a piece
  embedding     (one, no list) int stored type (f32 0, bf16 1, f16 2); a piece
  operations    int kind (in the order of ``programs.program``'s table as native/executor/program.h
                has it), name (list of bytes), three views (ints buffer or -1, offset, width) for
                two inputs and the output, ints matrix and vector or -1, groups, dim, heads, cache,
                kv_heads, window; float32 eps, uint32 tag; lists of int kv_map, nodes,
                contributors, owners
==============  ===================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bandweave import NUMERICS_VERSION, _native
from bandweave.checkpoints.source import TensorSource
from bandweave.programs.program import Attribute, Op, Program, View
from bandweave.ranges import Range
from bandweave.weights.loading import Weights

DUMP_VERSION = 1

_MAGIC = b"BANDWEAV"
_HEADER_BYTES = 64
_FORMATS = {"f32": 0, "bf16": 1, "q8": 2, "q4": 3}
_STORED = {"f32": 0, "bf16": 1, "f16": 2}
_KINDS = ("embed", "recv", "send", "rms_norm", "linear", "rope", "kv_append", "attention",
          "silu_mul", "linear_grid", "all_reduce_add", "take_rows", "gather_logits")  # fmt: skip
_NUMBERS = ("groups", "dim", "heads", "cache", "kv_heads", "window")


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
    """Writes the file and returns its size in bytes. ``OSError`` where that fails.

    ``program`` must be the whole model on one node; ``source`` has its embedding table.
    """
    assert program.num_nodes == 1, "the runner has no peers"
    with path.open("wb") as file:
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
    cache, out = program.cache, bytearray()
    half = options.kv_format == "f16"
    out += _ints(program.hidden_size, program.vocab_size)
    out += _ints(cache.layers, cache.kv_heads, cache.head_dim)
    out += _ints(half, options.context, options.max_rows)
    out += struct.pack(f"<I{len(program.inv_freq)}d", len(program.inv_freq), *program.inv_freq)
    out += _list(options.end_tokens)
    out += _count(program.buffers)
    for buffer in program.buffers.values():
        out += _ints(buffer.width, buffer.dtype == "grid", buffer.rows == "logits")
    out += _count(weights.matrices)
    for name, matrix in weights.matrices.items():
        weight = program.weights[name]
        form = _FORMATS[options.weight_format]
        out += _ints(form, weight.inputs, weight.unit, weight.outputs) + pieces.add(matrix.panels)
    out += _count(weights.vectors)
    for vector in weights.vectors.values():
        out += _ints(vector.size) + pieces.add(vector.astype("<f4"))
    table = source.read("embed_tokens", Range(start=0, stop=program.vocab_size))
    out += _ints(_STORED[source.dtype("embed_tokens")]) + pieces.add(table)
    out += _count(program.ops)
    places = (_index(program.buffers), _index(weights.matrices), _index(weights.vectors))
    for op in program.ops:
        out += _op(op, *places)
    return bytes(out)


def _op(
    op: Op, buffers: Mapping[str, int], matrices: Mapping[str, int], vectors: Mapping[str, int]
) -> bytes:
    def view(views: tuple[View, ...], index: int) -> bytes:
        if index >= len(views):
            return _ints(-1, 0, 0)
        return _ints(buffers[views[index].buffer], views[index].offset, views[index].width)

    attributes = dict(op.attributes)
    name = op.name.encode()
    out = _ints(_KINDS.index(op.kind)) + struct.pack("<I", len(name)) + name
    out += view(op.inputs, 0) + view(op.inputs, 1) + view(op.outputs, 0)
    out += _ints(-1 if op.weight is None else matrices[op.weight])
    out += _ints(-1 if op.vector is None else vectors[op.vector])
    out += _ints(*(_number(attributes.pop(key, 0)) for key in _NUMBERS))
    eps, tag = attributes.pop("eps", 0.0), attributes.pop("tag", 0)
    assert isinstance(eps, float) and isinstance(tag, int), op
    out += struct.pack("<fI", eps, tag)
    out += _list(_flat(attributes.pop("kv_map", ())))
    out += _list(_flat(attributes.pop("group", ())))
    out += _list(_flat(attributes.pop("contributors", ())))
    out += _list(_flat(attributes.pop("owners", ())))
    assert not attributes, (op.name, attributes)
    return out


def _number(value: Attribute) -> int:
    assert isinstance(value, int), value
    return value


def _flat(value: Attribute) -> list[int]:
    assert isinstance(value, tuple), value
    return [n for item in value for n in (item if isinstance(item, tuple) else (item,))]


def _index(names: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _count(things: Mapping[str, object] | Sequence[object]) -> bytes:
    return struct.pack("<I", len(things))


def _ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _list(values: Sequence[int]) -> bytes:
    return struct.pack("<I", len(values)) + _ints(*values)
