"""Work: what one node computes and sends in a step, operation by operation, as sizes.

Goes through a model's graph with a node's share as ``programs.lowering`` does, and gives what costs
time in the place of what runs. Pure; knows no machines and no seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bandweave.formats.sizes import packed_bytes
from bandweave.models.graph import COLUMN_UNIT, Axis, Graph, GraphOp
from bandweave.programs.split import NodeShare, Split

FRAME_BYTES = 32  # the header of every message
PAGE = 64  # positions of a KV page
_HOP_BYTES, _OVERLAP_ROWS, _MOST_CHUNKS = 64 << 10, 64, 4  # native/executor/reduce.cpp
_BLOCK = 64  # grid values that share a width on the wire
_LANES = 16  # buffers are padded to as many


@dataclass(frozen=True, kw_only=True)
class Step:
    """The rows of one step: ``rows`` of ``slots`` sequences, ``keys`` keys that a row sees on
    average, ``logit_rows`` that ask for logits; ``pages`` of the longest page table; ``logits``:
    the logits go to node 0, else only each owner's best token."""

    rows: int
    keys: float
    logit_rows: int
    slots: int = 1
    pages: int = 1
    logits: bool = False


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix of ``weight_bytes`` times ``rows`` rows of ``inputs`` numbers: ``outputs`` each."""

    weight_bytes: int
    inputs: int
    outputs: int
    rows: int
    on_grid: bool


@dataclass(frozen=True, kw_only=True)
class Attention:
    """``rows`` rows with ``heads`` query heads of ``dim`` over ``keys`` keys; ``together`` query
    heads read one KV head; ``kv_heads`` are appended first."""

    rows: int
    keys: float
    heads: int
    kv_heads: int
    dim: int

    @property
    def together(self) -> float:
        return self.heads / self.kv_heads


@dataclass(frozen=True, kw_only=True)
class Elements:
    """An operation of ``kind`` on ``count`` numbers in ``rows`` rows, which ``parts`` threads can
    share."""

    kind: str
    count: int
    rows: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class Reduce:
    """The sums of ``contributors`` meet at the nodes of ``group``: ``count`` numbers in ``rows``
    rows, in messages of ``payload_bytes`` to each other node, in ``hops`` (2: slices are added up
    and then sent on). In several ``chunks`` of rows, all but the last of which cross while the
    product that made them goes on."""

    group: tuple[int, ...]
    contributors: tuple[int, ...]
    count: int
    rows: int
    payload_bytes: int
    hops: int = 1
    chunks: int = 1


@dataclass(frozen=True, kw_only=True)
class Send:
    """One message of ``payload_bytes`` from node ``source`` to each of ``targets``. ``kind``:
    ``"activations"``, ``"logits"`` or ``"control"``."""

    source: int
    targets: tuple[int, ...]
    payload_bytes: int
    kind: str


Local = Product | Attention | Elements
Meeting = Reduce | Send


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What nodes compute until they meet: ``local`` work by node, then the ``meetings`` in
    order."""

    local: Mapping[int, tuple[Local, ...]]
    meetings: tuple[Meeting, ...]


def step_work(
    graph: Graph, split: Split, step: Step, *, format: str
) -> Iterator[tuple[Segment, int]]:
    """The segments of one step in order, each with how many times it comes in a row: layers of one
    stage are alike."""
    return _Work(graph, split, step, format).segments()


class _Work:
    def __init__(self, graph: Graph, split: Split, step: Step, format: str) -> None:
        self.graph, self.spec, self.split = graph, graph.spec, split
        self.step, self.format = step, format

    def segments(self) -> Iterator[tuple[Segment, int]]:
        split, step = self.split, self.step
        row_bytes = 4 * self.spec.hidden_size * step.rows
        everyone = tuple(range(split.num_nodes))
        opening: list[Meeting] = []
        if len(everyone) > 1:
            head = 16 + 4 * (4 * step.rows + step.slots * step.pages)
            opening.append(_send(0, everyone[1:], head, "control"))
        if len(split.stages[0]) > 1:
            opening.append(_send(0, split.stages[0][1:], row_bytes, "activations"))
        turned = {
            node: (self._elements("rope_angles", self.spec.rope.rotary_dim // 2),)
            for node in everyone
        }
        yield Segment(local=turned, meetings=tuple(opening)), 1
        for stage, nodes in enumerate(split.stages):
            if stage:
                before = split.stages[stage - 1]
                size = len(before)
                pipes = tuple(
                    _send(source, targets, row_bytes, "activations")
                    for rank, source in enumerate(before)
                    if (targets := tuple(n for r, n in enumerate(nodes) if r % size == rank))
                )
                yield Segment(local={}, meetings=pipes), 1
            layers = split.shares[nodes[0]].layers
            for segment in self._layer(layers.start, nodes):
                yield segment, len(layers)
        yield self._end(split.stages[-1]), 1

    def _layer(self, layer: int, nodes: tuple[int, ...]) -> Iterator[Segment]:
        """The segments of one layer, in each of which every node of the stage takes part."""
        local: dict[int, list[Local]] = {node: [] for node in nodes}
        for op in self.graph.ops:
            if op.layer != layer:
                continue
            for node in nodes:
                local[node] += self._local(op, self.split.shares[node])
            if op.kind == "linear_add":
                meeting = self._reduce(op, nodes)
                yield Segment(local=_frozen(local), meetings=(meeting,))
                local = {node: [] for node in nodes}
        assert not any(local.values()), f"layer {layer} does not end in a sum"

    def _end(self, nodes: tuple[int, ...]) -> Segment:
        spec, step = self.spec, self.step
        rows = step.logit_rows
        local: dict[int, list[Local]] = {}
        meetings: list[Meeting] = []
        for node in nodes:
            own = len(self.split.shares[node].vocabulary)
            norm = Elements(
                kind="rms_norm",
                count=rows * spec.hidden_size,
                rows=max(1, rows),
                parts=max(1, rows),
            )
            local[node] = [norm]
            if own and rows:
                local[node].append(self._product(own, spec.hidden_size, spec.hidden_size, rows))
            if own and node and rows:
                payload = rows * (4 * own if step.logits else 8)
                meetings.append(_send(node, (0,), payload, "logits"))
        return Segment(local=_frozen(local), meetings=tuple(meetings))

    def _local(self, op: GraphOp, share: NodeShare) -> list[Local]:
        spec, rows = self.spec, self.step.rows
        if op.kind == "rms_norm":
            return [self._elements("rms_norm", op.inputs[0].width, parts=rows)]
        if op.kind == "linear":
            outputs = sum(self._width(value.axis, share) for value in op.outputs)
            inputs = op.weights[0].shape[1]
            return [self._product(outputs, inputs, inputs, rows)] if outputs else []
        own = self._width(op.inputs[-1 if op.kind == "linear_add" else 0].axis, share)
        if not own:
            return []
        if op.kind == "head_norm":
            return [self._elements("rms_norm", own, parts=rows * own // spec.head_dim)]
        if op.kind in ("rope", "silu_mul"):
            return [self._elements(op.kind, own)]
        if op.kind == "attention":
            heads, kv_heads = len(share.heads), len(share.kv_heads)
            keys = self.step.keys
            if spec.sliding_window:
                keys = min(keys, float(spec.sliding_window))
            return [
                self._elements("kv_append", kv_heads * spec.head_dim),
                Attention(rows=rows, keys=keys, heads=heads, kv_heads=kv_heads, dim=spec.head_dim),
            ]
        assert op.kind == "linear_add", f"an operation of unknown cost: {op.kind}"
        unit = spec.head_dim if op.inputs[1].axis is Axis.HEADS else COLUMN_UNIT
        return [self._product(op.inputs[0].width, own, unit, rows, on_grid=True)]

    def _reduce(self, op: GraphOp, nodes: tuple[int, ...]) -> Reduce:
        axis = op.inputs[1].axis
        width = -(-op.inputs[0].width // _LANES) * _LANES
        count = width * self.step.rows
        # As native/executor/reduce.cpp decides.
        chunks, own = 1, 4 * op.inputs[0].width * self.step.rows
        if self.step.rows >= 2 * _OVERLAP_ROWS and own >= 2 * _HOP_BYTES:
            chunks = min(_MOST_CHUNKS, self.step.rows // _OVERLAP_ROWS)
        others = len(nodes) - 1
        scattered = others * own / chunks * (1 - 2 / len(nodes)) > _HOP_BYTES
        blocks = -(-count // _BLOCK)
        if scattered:
            blocks = -(-blocks // len(nodes))
        return Reduce(
            group=nodes,
            contributors=tuple(n for n in nodes if self._width(axis, self.split.shares[n])),
            count=count,
            rows=self.step.rows,
            payload_bytes=-(-blocks // 8) * 8 + blocks * _BLOCK * 4,
            hops=2 if scattered else 1,
            chunks=chunks,
        )

    def _product(
        self, outputs: int, inputs: int, unit: int, rows: int, *, on_grid: bool = False
    ) -> Product:
        size = packed_bytes(self.format, outputs, inputs, unit)
        return Product(
            weight_bytes=size, inputs=inputs, outputs=outputs, rows=rows, on_grid=on_grid
        )

    def _elements(self, kind: str, width: int, *, parts: int | None = None) -> Elements:
        count = width * self.step.rows
        shared = count // _LANES if parts is None else parts
        return Elements(kind=kind, count=count, rows=self.step.rows, parts=max(1, shared))

    def _width(self, axis: Axis | None, share: NodeShare) -> int:
        if axis is Axis.HEADS:
            return len(share.heads) * self.spec.head_dim
        if axis is Axis.KV_HEADS:
            return len(share.kv_heads) * self.spec.head_dim
        assert axis is Axis.COLUMNS, axis
        return len(share.columns)


def _send(source: int, targets: tuple[int, ...], payload: int, kind: str) -> Send:
    return Send(source=source, targets=targets, payload_bytes=payload, kind=kind)


def _frozen(local: dict[int, list[Local]]) -> dict[int, tuple[Local, ...]]:
    return {node: tuple(work) for node, work in local.items()}
