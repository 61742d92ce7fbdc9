"""Work: what one node computes and sends in a step, operation by operation, as sizes.

Derived from the operations of the nodes' programs, of which ``programs.operations`` says what each
takes time for. Layers that are alike are lowered once. Pure; knows no machines and no seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from bandweave import _native
from bandweave.formats.sizes import packed_bytes
from bandweave.models.graph import Graph
from bandweave.models.model_shape import distinct_experts
from bandweave.programs.lowering import lower
from bandweave.programs.operations import BY_KIND
from bandweave.programs.program import Op, Program, Weight
from bandweave.programs.split import Split

FRAME_BYTES = _native.FRAME_BYTES  # the header of every message
PAGE = _native.PAGE_SIZE  # positions of a KV page
STATE_NUMBERS = _native.STATE_NUMBERS  # of a sequence, in the header of a step
_LANES = 16  # numbers that a thread takes at least


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
    """``rows`` rows with ``heads`` query heads of ``dim`` elements (the mean of a key's and a
    value's) over ``keys`` keys of ``kv_heads``; ``together`` query heads read one KV head."""

    rows: int
    keys: float
    heads: int
    kv_heads: int
    dim: float

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
    """The segments of one step in order, each with how many times it comes in a row: as often as
    the layers are alike."""
    return _Work(graph, split, step, format).segments()


@lru_cache(16)  # a step at a time is asked for, of the same few splits
def _programs(graph: Graph, split: Split) -> tuple[Program, ...]:
    """Every node's program, with the first of the layers that are alike of those that it has."""
    alike = graph.alike()
    programs = []
    for share in split.shares:
        firsts = {alike[n]: n for n in range(share.layers.stop - 1, share.layers.start - 1, -1)}
        programs.append(lower(graph, split, share.node, layers=frozenset(firsts.values())))
    return tuple(programs)


class _Work:
    def __init__(self, graph: Graph, split: Split, step: Step, format: str) -> None:
        self.split, self.step, self.format = split, step, format
        self.alike = graph.alike()
        self.programs = _programs(graph, split)

    def segments(self) -> Iterator[tuple[Segment, int]]:
        split, step = self.split, self.step
        everyone = tuple(range(split.num_nodes))
        opening: list[Meeting] = []
        if len(everyone) > 1:
            numbers = STATE_NUMBERS if any(one.states for one in self.programs) else 0
            head = 16 + 4 * (4 * step.rows + step.slots * (step.pages + numbers))
            opening.append(_send(0, everyone[1:], head, "control"))
        opening += self._messages(split.stages[0], "embed")
        yield Segment(local=self._angles(), meetings=tuple(opening)), 1
        for stage, nodes in enumerate(split.stages):
            if stage:
                pipes = self._messages(split.stages[stage - 1], "send")
                yield Segment(local={}, meetings=tuple(pipes)), 1
            yield from self._layers(nodes)
        yield self._end(split.stages[-1]), 1

    def _angles(self) -> dict[int, tuple[Local, ...]]:
        """Sines and cosines that each node needs for its rotations."""
        rows, local = self.step.rows, {}
        for program in self.programs:
            if count := sum(map(len, program.frequencies)) * rows:
                parts = max(1, count // _LANES)
                angles = Elements(kind="rope_angles", count=count, rows=rows, parts=parts)
                local[program.node] = (angles,)
        return local

    def _layers(self, nodes: tuple[int, ...]) -> Iterator[tuple[Segment, int]]:
        """The segments of a stage's layers."""
        layers = self.split.shares[nodes[0]].layers
        runs = groupby(range(layers.start, layers.stop), key=self.alike.__getitem__)
        known: dict[int, tuple[Segment, ...]] = {}
        for first, run in runs:
            times = list(run)
            if first not in known:
                known[first] = tuple(self._layer(times[0], nodes))
            for segment in known[first]:
                yield segment, len(times)

    def _layer(self, layer: int, nodes: tuple[int, ...]) -> Iterator[Segment]:
        """The segments of one layer, in each of which every node of the stage takes part."""
        by_node = [self._between_sums(self.programs[node], layer) for node in nodes]
        for parts in zip(*by_node, strict=True):
            meetings = {None if op is None else self._reduce(op) for _, op in parts}
            assert len(meetings) == 1, f"the nodes of layer {layer} meet in other sums"
            local = {node: work for node, (work, _) in zip(nodes, parts, strict=True)}
            yield Segment(local=local, meetings=tuple(one for one in meetings if one is not None))

    def _between_sums(
        self, program: Program, layer: int
    ) -> Iterator[tuple[tuple[Local, ...], Op | None]]:
        """What a node computes up to each of a layer's sums, and the sum; then what follows the
        last, with None."""
        local: list[Local] = []
        for op in program.ops:
            if op.layer != layer:
                continue
            if BY_KIND[op.kind].cost == "sum":
                yield tuple(local), op
                local = []
            else:
                local += self._local(program, op)
        if local:
            yield tuple(local), None

    def _end(self, nodes: tuple[int, ...]) -> Segment:
        """What makes logits of the last layer's rows."""
        local = {
            node: tuple(
                work
                for op in self.programs[node].ops
                if op.layer is None
                for work in self._local(self.programs[node], op)
            )
            for node in nodes
        }
        return Segment(local=local, meetings=tuple(self._messages(nodes, "gather_logits")))

    # --- operations ---

    def _local(self, program: Program, op: Op) -> list[Local]:
        table = BY_KIND[op.kind]
        if table.cost in ("message", "nothing"):
            return []
        view = op.inputs[0]
        logits = program.buffers[view.buffer].rows == "logits"
        rows = self.step.logit_rows if logits else self.step.rows
        if table.cost == "attention":
            latent = op.kind == "latent_attention"  # all heads read one key
            window = 0 if latent else op.number("window")
            kv_heads = 1 if latent else len(set(op.numbers("kv_map")))
            return [
                Attention(
                    rows=rows,
                    keys=min(self.step.keys, float(window)) if window else self.step.keys,
                    heads=op.number("heads"),
                    kv_heads=kv_heads,
                    dim=(op.number("k_dim") + op.number("v_dim")) / 2,
                )
            ]
        if table.cost == "state":
            # A row's change of a state goes twice through it: as attention to so many keys does.
            return [
                Attention(
                    rows=rows,
                    keys=float(op.number("k_dim")),
                    heads=op.number("heads"),
                    kv_heads=op.number("heads"),
                    dim=float(op.number("v_dim")),
                )
            ]
        if table.cost == "product":
            assert op.weight is not None, op
            return [self._product(op, program.weights[op.weight], rows)] if rows else []
        if table.cost == "heads":
            return self._heads(program, op, rows)
        if table.cost == "experts":
            return self._experts(program, op)
        assert table.cost == "elements", f"an operation of unknown cost: {op.kind}"
        if table.shared in op.attributes:
            parts = rows * op.number(table.shared)
        else:
            parts = rows * view.width // _LANES
        kind = table.timed_as or op.kind
        count = rows * view.width
        return [Elements(kind=kind, count=count, rows=max(1, rows), parts=max(1, parts))]

    def _product(self, op: Op, weight: Weight, rows: int, alike: float = 1) -> Product:
        """The product of a matrix, or of so many that are alike, as one."""
        return Product(
            weight_bytes=round(alike * _packed_bytes(weight, self.format)),
            inputs=weight.inputs,
            outputs=round(alike * weight.outputs),
            rows=rows,
            on_grid=BY_KIND[op.kind].outputs[0].dtype == "grid",
        )

    def _heads(self, program: Program, op: Op, rows: int) -> list[Local]:
        """The products of all heads."""
        weights = [program.weights[name] for name in op.names("matrices") if name is not None]
        return [self._product(op, weights[0], rows, len(weights))]

    def _experts(self, program: Program, op: Op) -> list[Local]:
        """Products of the experts that the rows can be expected to choose, rows of each alike, and
        of the shared one."""
        names, rows, top_k = op.names("matrices"), self.step.rows, op.number("top_k")
        has_shared = op.inputs[1].width // 2 > top_k
        routed = names[: len(names) - has_shared]
        products: list[Local] = []
        if (name := next((one for one in routed if one is not None), None)) is not None:
            distinct = distinct_experts(len(routed), top_k, rows)
            each = max(1, round(rows * top_k / distinct))
            products.append(self._product(op, program.weights[name], each, distinct))
        if has_shared and (name := names[-1]) is not None:
            products.append(self._product(op, program.weights[name], rows))
        return products

    def _reduce(self, op: Op) -> Reduce:
        group, width = op.numbers("group"), op.inputs[0].width
        hops, chunks, payload = _native.reduction(self.step.rows, width, len(group))
        return Reduce(
            group=group,
            contributors=op.numbers("contributors"),
            count=width * self.step.rows,
            rows=self.step.rows,
            payload_bytes=payload,
            hops=hops,
            chunks=chunks,
        )

    def _messages(self, nodes: tuple[int, ...], kind: str) -> list[Send]:
        """What the nodes send in their operations of a kind."""
        step, found = self.step, []
        for node in nodes:
            program = self.programs[node]
            for op in program.ops:
                if op.kind != kind:
                    continue
                if kind == "gather_logits":
                    if node and op.inputs and step.logit_rows:
                        each = 4 * op.inputs[0].width if step.logits else 8
                        found.append(_send(node, (0,), step.logit_rows * each, "logits"))
                    continue
                to = op.numbers("group" if kind == "embed" else "peers")
                others = tuple(one for one in to if one != node)
                if others and (kind == "send" or node == 0):
                    size = 4 * program.hidden_size * step.rows
                    found.append(_send(node, others, size, "activations"))
        return found


def _packed_bytes(weight: Weight, weight_format: str) -> int:
    own = weight.format_in(weight_format)
    return packed_bytes(own, weight.outputs, weight.inputs, weight.unit)


def _send(source: int, targets: tuple[int, ...], payload: int, kind: str) -> Send:
    return Send(source=source, targets=targets, payload_bytes=payload, kind=kind)
