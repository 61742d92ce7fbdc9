"""Encoding: a program as bytes, which the C++ core decodes and checks (native/executor/decode.h).

All numbers are little-endian; an *int* is int32, a *list* a uint32 count and then its elements:

uint32 ``OPERATIONS_DIGEST``; ints node, num_nodes, hidden_size, vocab_size, the first operation of
the pass that drafts (-1: none); then the lists of

==============  ===================================================================================
caches          ints kv_heads, k_dim, v_dim, whether latent
states          ints heads, k_dim, v_dim, row, history
frequencies     a list of float64, then a float64: what multiplies cosines and sines
buffers         ints width, whether a grid, whether of rows that ask for logits
weights         ints inputs, unit, outputs
vectors         int size
operations      int kind (its place in the table), name (a list of bytes); then, as the table has
                them: a view (ints buffer or -1, offset, width) for each input and output, int
                weight or -1, int vector or -1, the attributes in order
==============  ===================================================================================

An attribute of type ``real`` is float32, ``tag`` uint32, a list of ints where it is one, else an
int. Whether the numbers make sense is for the decoder to say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence, Sized

from bandweave.programs.operations import (
    BY_KIND,
    KIND_NUMBERS,
    OPERATIONS_DIGEST,
    Attribute,
    Operand,
)
from bandweave.programs.program import Attribute as Value
from bandweave.programs.program import Op, Program, View


def encode(program: Program) -> bytes:
    """``ValueError`` names the operation that the table does not have so."""
    out = bytearray(struct.pack("<I", OPERATIONS_DIGEST))
    out += ints(program.node, program.num_nodes, program.hidden_size, program.vocab_size)
    out += ints(-1 if program.drafts_from is None else program.drafts_from)
    out += _count(program.caches)
    for cache in program.caches:
        out += ints(cache.kv_heads, cache.k_dim, cache.v_dim, cache.latent)
    out += _count(program.states)
    for state in program.states:
        out += ints(state.heads, state.k_dim, state.v_dim, state.row, state.history)
    out += _count(program.frequencies)
    for table in program.frequencies:
        out += _count(table)
        out += struct.pack(f"<{len(table) + 1}d", *table.frequencies, table.factor)
    out += _count(program.buffers)
    for buffer in program.buffers.values():
        out += ints(buffer.width, buffer.dtype == "grid", buffer.rows == "logits")
    out += _count(program.weights)
    for weight in program.weights.values():
        out += ints(weight.inputs, weight.unit, weight.outputs)
    out += _count(program.vectors)
    for vector in program.vectors.values():
        out += ints(vector.size)
    out += _count(program.ops)
    encoder = _Encoder(program)
    for op in program.ops:
        out += encoder.op(op)
    return bytes(out)


class _Encoder:
    """Operations with the indices of what they name."""

    def __init__(self, program: Program) -> None:
        self._buffers = _index(program.buffers)
        self._weights, self._vectors = _index(program.weights), _index(program.vectors)

    def op(self, op: Op) -> bytes:
        if (table := BY_KIND.get(op.kind)) is None:
            raise ValueError(f"operation {op.name} is a {op.kind}, which no table has")
        if unknown := op.attributes.keys() - {one.name for one in table.attributes}:
            raise ValueError(f"operation {op.name}, a {op.kind}, has no {', '.join(unknown)}")
        name = op.name.encode()
        out = ints(KIND_NUMBERS[op.kind]) + struct.pack("<I", len(name)) + name
        try:
            out += self._views(op, table.inputs, op.inputs)
            out += self._views(op, table.outputs, op.outputs)
            if table.weight:
                out += ints(-1 if op.weight is None else self._weights[op.weight])
            if table.vector:
                out += ints(-1 if op.vector is None else self._vectors[op.vector])
            for attribute in table.attributes:
                value = op.attributes[attribute.name]
                if attribute.type == "matrices":
                    value = self._matrices(value)
                out += _attribute(attribute, value)
        except KeyError as error:
            raise ValueError(f"operation {op.name}, a {op.kind}, lacks {error}") from None
        except (struct.error, OverflowError, TypeError) as error:
            raise ValueError(
                f"operation {op.name}, a {op.kind}, holds what cannot be written: {error}"
            ) from None
        return out

    def _matrices(self, names: Value) -> tuple[int, ...]:
        assert isinstance(names, tuple)
        return tuple(-1 if name is None else self._weights[str(name)] for name in names)

    def _views(self, op: Op, operands: Sequence[Operand], views: Sequence[View]) -> bytes:
        if len(views) > len(operands):
            raise ValueError(f"operation {op.name}, a {op.kind}, has {len(views)} views too many")
        out = b"".join(ints(self._buffers[v.buffer], v.offset, v.width) for v in views)
        return out + ints(-1, 0, 0) * (len(operands) - len(views))


def _attribute(attribute: Attribute, value: Value) -> bytes:
    if attribute.type == "real":
        return struct.pack("<f", value)
    if attribute.type == "tag":
        return struct.pack("<I", value)
    if not isinstance(value, tuple):
        return ints(value)
    return struct.pack("<I", len(value)) + ints(*_flat(value))


def _flat(values: Iterable[object]) -> list[int]:
    """The ints of a tuple of ints, or of tuples of them; others are for ``ints`` to refuse."""
    items = (item if isinstance(item, tuple) else (item,) for item in values)
    return [n for item in items for n in item]  # type: ignore[misc]


def _index(names: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _count(things: Sized) -> bytes:
    return struct.pack("<I", len(things))


def ints(*values: int | float) -> bytes:
    """int32 each; ``struct.error`` for what is none."""
    return struct.pack(f"<{len(values)}i", *values)
