"""Program: what one node does in a step, as a flat printable list of operations over buffers.

``programs.lowering`` makes it from a graph and a node's share. Knows which slices of which tensors
the node needs and which nodes it talks to; knows no files, no formats, no sockets and no arrays.

Operation kinds, with what they read and write (T = rows of the step, L = rows that ask for logits):

==============  ===================================================================================
embed           writes x [T, hidden] from the step's embedding rows; node 0 passes them on
recv, send      x [T, hidden] float32 from or to nodes of the neighbouring stage
rms_norm        output = norm(input) * vector, over each of ``groups`` groups of ``dim`` elements
linear          output = input @ weight.T (+ vector), outputs split (``all_to_sharded``)
rope            rotates ``heads`` heads of ``dim`` elements in place by the row's position
kv_append       stores inputs k, v of ``kv_heads`` heads at the row's position of cache ``cache``
attention       output = attention of ``heads`` query heads; ``kv_map[h]`` is head h's KV head
silu_mul        output = silu(gate) * up
linear_grid     output grid (int64) = input @ weight.T by units of k (``sharded_to_all``)
all_reduce_add  x += sum of the grids of ``contributors`` (+ vector), over nodes ``group``
take_rows       output [L, hidden] = the rows of the input that ask for logits
gather_logits   the owners' logits to node 0, ``owners`` = ((node, start, stop), ...)
==============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bandweave.models.graph import SplitUnit
from bandweave.ranges import Range

Attribute = int | float | tuple[int, ...] | tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A ``[rows, width]`` array that lives as long as the program.

    ``dtype`` is ``"f32"`` or ``"grid"`` (int64); ``rows`` is ``"step"`` or ``"logits"``.
    """

    name: str
    width: int
    dtype: str = "f32"
    rows: str = "step"


@dataclass(frozen=True, kw_only=True)
class View:
    """``width`` elements of every row of a buffer, from ``offset``."""

    buffer: str
    offset: int
    width: int

    def __str__(self) -> str:
        return f"{self.buffer}[{self.offset}:{self.offset + self.width}]"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rectangle of a checkpoint tensor; ``columns`` is None for a vector. It is whole rows or
    columns, as ``unit`` says, and cuts no unit."""

    tensor: str
    rows: Range
    columns: Range | None = None
    unit: SplitUnit

    @property
    def along(self) -> Range:
        """The rows, or the columns, by which the tensor is split."""
        if not self.unit.columns:
            return self.rows
        assert self.columns is not None
        return self.columns


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A matrix ``[outputs, inputs]``: its parts stacked along the outputs; ``unit`` is along k."""

    name: str
    parts: tuple[Part, ...]
    outputs: int
    inputs: int
    unit: int


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A float32 vector: its parts one after the other."""

    name: str
    parts: tuple[Part, ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of a program; see the module's table."""

    kind: str
    name: str
    inputs: tuple[View, ...] = ()
    outputs: tuple[View, ...] = ()
    weight: str | None = None
    vector: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __str__(self) -> str:
        reads = ", ".join(str(view) for view in self.inputs)
        writes = ", ".join(str(view) for view in self.outputs)
        extra = [f"{key}={value}" for key, value in self.attributes.items()]
        names = [name for name in (self.weight, self.vector) if name]
        return (
            f"{self.kind:14} {self.name}: {reads} -> {writes}  {' '.join(names + extra)}".rstrip()
        )


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """The KV cache of a node: ``layers`` caches of ``kv_heads`` heads of ``head_dim`` elements."""

    layers: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """All that a node computes in a step. Print it to read it. ``embedding`` is the table whose
    rows node 0 reads when a step begins, None on other nodes."""

    node: int
    num_nodes: int
    hidden_size: int
    vocab_size: int
    buffers: Mapping[str, Buffer]
    weights: Mapping[str, Weight]
    vectors: Mapping[str, Vector]
    cache: CacheShape
    inv_freq: tuple[float, ...]
    ops: tuple[Op, ...]
    embedding: Part | None = None

    def __str__(self) -> str:
        head = f"node {self.node} of {self.num_nodes}: {len(self.ops)} operations"
        return "\n".join([head, *(f"  {index:4} {op}" for index, op in enumerate(self.ops))])
