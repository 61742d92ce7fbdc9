"""Program: what one node does in a step, as a flat printable list of operations over buffers.

``programs.lowering`` makes it from a graph and a node's share. Knows which slices of which tensors
the node needs and which nodes it talks to; knows no files, no formats, no sockets and no arrays.

``programs.operations`` is the table of the kinds of operations; ``programs.encoding`` makes bytes
of a program for the C++ core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bandweave.models.graph_op import SplitUnit
from bandweave.models.rope import RopeTable
from bandweave.programs.operations import BY_KIND
from bandweave.ranges import Range

Attribute = (
    int | float | tuple[int, ...] | tuple[tuple[int, int, int], ...] | tuple[str | None, ...]
)


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
    def outputs(self) -> int:
        """Outputs of a matrix that it makes."""
        return len(self.rows)

    @property
    def along(self) -> Range:
        """The rows, or the columns, by which the tensor is split."""
        if not self.unit.columns:
            return self.rows
        assert self.columns is not None
        return self.columns


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A matrix ``[outputs, inputs]``: its parts stacked along the outputs; ``unit`` is along k.

    ``format``: one that it has whatever the others have, empty for theirs.
    """

    name: str
    parts: tuple[Part, ...]
    outputs: int
    inputs: int
    unit: int
    format: str = ""

    def format_in(self, weight_format: str) -> str:
        """The format that it has where the others have ``weight_format``."""
        return self.format or weight_format


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A float32 vector: its parts one after the other, plus ``offset`` in float32."""

    name: str
    parts: tuple[Part, ...]
    size: int
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of a program; ``layer`` is None outside the layers."""

    kind: str
    name: str
    inputs: tuple[View, ...] = ()
    outputs: tuple[View, ...] = ()
    weight: str | None = None
    vector: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    layer: int | None = None

    def number(self, attribute: str) -> int:
        """An attribute that is an int."""
        value = self.attributes[attribute]
        assert isinstance(value, int), (self.name, attribute)
        return value

    def real(self, attribute: str) -> float:
        value = self.attributes[attribute]
        assert isinstance(value, float), (self.name, attribute)
        return value

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """An attribute that is a tuple of ints."""
        value = self.attributes[attribute]
        assert isinstance(value, tuple), (self.name, attribute)
        return tuple(entry for entry in value if isinstance(entry, int))

    def names(self, attribute: str) -> tuple[str | None, ...]:
        """An attribute that is a tuple of matrices' names, None for those that are elsewhere."""
        value = self.attributes[attribute]
        assert isinstance(value, tuple), (self.name, attribute)
        return tuple(one if isinstance(one, str) else None for one in value)

    def __str__(self) -> str:
        reads = ", ".join(map(str, self.inputs))
        writes = ", ".join(map(str, self.outputs))
        names = [name for name in (self.weight, self.vector) if name]
        extra = [
            f"{one.name}={_text(self.attributes[one.name])}"
            for one in BY_KIND[self.kind].attributes
        ]
        return (
            f"{self.kind:14} {self.name}: {reads} -> {writes}  {' '.join(names + extra)}".rstrip()
        )


def _text(value: Attribute) -> str:
    if isinstance(value, tuple) and any(isinstance(one, str) for one in value):
        return f"({sum(one is not None for one in value)} of {len(value)})"
    return f"{value:.9g}" if isinstance(value, float) else str(value).replace(" ", "")


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """The KV cache of one layer on a node: ``kv_heads`` heads of keys of ``k_dim`` elements and
    values of ``v_dim``. A ``latent`` one has one head, whose values are the first elements of its
    keys."""

    kv_heads: int
    k_dim: int
    v_dim: int
    latent: bool = False


@dataclass(frozen=True, kw_only=True)
class StateShape:
    """What a layer remembers of a sequence, on a node, in the place of a cache: a float32 matrix
    ``[k_dim, v_dim]`` for each of ``heads`` heads, and ``row`` numbers of each of the last rows:
    ``history`` of them always, and those that may have been drafted wrong."""

    heads: int = 0
    k_dim: int = 0
    v_dim: int = 0
    row: int
    history: int = 0


@dataclass(frozen=True, kw_only=True)
class Program:
    """All that a node computes in a step. Print it to read it.

    ``frequencies``: what ropes turn by. ``embedding`` is the table whose rows node 0 reads when a
    step begins, None on other nodes. ``drafts_from``: the first operation of the pass that drafts,
    or gives node 0 hidden states (``lowering_last_hidden``), which a step takes instead of those
    before; None where there is none.
    """

    node: int
    num_nodes: int
    hidden_size: int
    vocab_size: int
    buffers: Mapping[str, Buffer]
    weights: Mapping[str, Weight]
    vectors: Mapping[str, Vector]
    caches: tuple[CacheShape, ...] = ()
    states: tuple[StateShape, ...] = ()
    frequencies: tuple[RopeTable, ...] = ()
    ops: tuple[Op, ...]
    embedding: Part | None = None
    drafts_from: int | None = None

    @property
    def main_ops(self) -> tuple[Op, ...]:
        """The operations of a usual step."""
        return self.ops[: self.drafts_from]

    @property
    def draft_ops(self) -> tuple[Op, ...]:
        """Those of one that drafts, or gives hidden states."""
        return () if self.drafts_from is None else self.ops[self.drafts_from :]

    def parts(self) -> list[Part]:
        """All that is read of the checkpoint: of matrices, of vectors, and of the embedding."""
        holders = (*self.weights.values(), *self.vectors.values())
        parts = [part for holder in holders for part in holder.parts]
        return parts if self.embedding is None else [*parts, self.embedding]

    def __str__(self) -> str:
        head = f"node {self.node} of {self.num_nodes}: {len(self.ops)} operations"
        if self.drafts_from is not None:
            head += f", from {self.drafts_from} on of a pass of their own"
        return "\n".join([head, *(f"  {index:4} {op}" for index, op in enumerate(self.ops))])
