"""Lowering: from a model's graph and a split to the program of one node.

The only place that knows how an operation of a graph is divided. Pure; does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from bandweave.models.cut import Cut
from bandweave.models.graph import HIDDEN, Graph
from bandweave.models.graph_op import GraphOp, Value, WeightSpec
from bandweave.programs import (
    lowering_all_heads,
    lowering_attention,
    lowering_delta,
    lowering_further,
    lowering_last_hidden,
    lowering_latent,
    lowering_mixture,
    lowering_products,
)
from bandweave.programs.builder import Builder
from bandweave.programs.operations import GATES
from bandweave.programs.program import (
    Part,
    Program,
    Vector,
    View,
)
from bandweave.programs.split import NodeShare, Split
from bandweave.ranges import Range


def lower(
    graph: Graph,
    split: Split,
    node: int,
    *,
    layers: frozenset[int] | None = None,
    formats: Mapping[str, str] | None = None,
) -> Program:
    """The program of one node of a split; with ``layers`` only those of its layers, for who wants
    to know what a node computes and knows which layers are alike. ``formats``: weight formats by
    tensor, where not all have the same."""
    lowering = Lowering(graph, split, split.shares[node], formats or {})
    return lowering.run(_numbered(graph, layers))


@lru_cache(16)
def _numbered(graph: Graph, layers: frozenset[int] | None) -> list[tuple[int, GraphOp]]:
    """A graph's operations with their numbers, which tag exchanges alike on all nodes."""
    return [
        (number, op)
        for number, op in enumerate(graph.ops)
        if op.layer is None or layers is None or op.layer in layers
    ]


class Lowering:
    """Walks the graph's operations and emits those that the node has a part in."""

    def __init__(
        self, graph: Graph, split: Split, share: NodeShare, formats: Mapping[str, str]
    ) -> None:
        self.formats = formats
        self.graph, self.spec, self.split, self.share = graph, graph.spec, split, share
        self.group = split.stages[share.stage]
        self.views: dict[str, View] = {}
        self.tag = 0
        self.last_norm: tuple[GraphOp, View] | None = None  # and what it reads, of all rows
        self.made = Builder()

    def run(self, ops: Sequence[tuple[int, GraphOp]]) -> Program:
        share, last = self.share, len(self.split.stages) - 1
        if share.stage > 0:
            self._pipe("recv", share.stage - 1)
        for tag, op in ops:
            if op.drafts:
                continue
            if op.layer is not None:
                here = share.layers.start <= op.layer < share.layers.stop
            else:
                here = share.stage == (0 if op.kind == "embed" else last)
            if here:
                self.emit(tag, op)
        self.made.layer = None
        if share.stage < last:
            self._pipe("send", share.stage + 1)
            if share.node == 0:
                self.gather()
        if drafting := [(tag, op) for tag, op in ops if op.drafts]:
            lowering_further.draft(self, drafting)
        else:
            lowering_last_hidden.give(self)
        return self.made.program(
            node=share.node,
            num_nodes=self.split.num_nodes,
            hidden_size=self.spec.hidden_size,
            vocab_size=self.spec.vocab_size,
        )

    def emit(self, tag: int, op: GraphOp) -> None:
        """Lowers an operation of the graph that the node has a part in."""
        self.tag, self.made.layer = tag, op.layer
        if (other := _OTHERS.get(op.kind)) is not None:
            other(self, op)
        else:
            getattr(self, f"_{op.kind}", self._pointwise)(op)

    # --- the graph's operations ---

    def _embed(self, op: GraphOp) -> None:
        (value,) = op.outputs
        x = self.views[value.name] = self.made.buffer(value.name, self.spec.hidden_size)
        group = tuple(sorted({0, *self.group}))
        self.made.op("embed", op.name, outputs=(x,), tag=self.tag, group=group)
        if (factor := op.number("factor")) != 1:
            self.made.op("scale", f"{op.name}.scale", (x,), (x,), factor=factor)
        if self.share.node == 0 and not op.drafts:
            rows, columns = (Range(start=0, stop=size) for size in op.weights[0].shape)
            self.made.embedding = self.part(op.weights[0], rows, columns)

    def _rms_norm(self, op: GraphOp) -> None:
        (x,), (y,) = op.inputs, op.outputs
        source = self.views[x.name]
        rows = "step"
        if y.name == HIDDEN:
            return lowering_further.kept_norm(self, op)
        if op.layer is None:  # the last norm: only rows that ask for logits go on
            self.last_norm = op, source
            taken = self.made.buffer("x_taken", x.width, rows="logits")
            self.made.op("take_rows", "take_rows", inputs=(source,), outputs=(taken,))
            source, rows = taken, "logits"
        target = self.made.buffer(y.name if rows == "step" else "y_taken", y.width, rows=rows)
        self.views[y.name] = target
        self.norm(op, source, target, groups=1, dim=x.width)

    _layer_norm = _rms_norm

    def _gated_mul(self, op: GraphOp) -> None:
        function = op.attributes["function"]
        assert isinstance(function, str)
        self._pointwise(
            replace(op, attributes={**op.attributes, "function": GATES.index(function)})
        )

    def _pointwise(self, op: GraphOp) -> None:
        """An operation on numbers in the same place of its inputs and output, all split alike."""
        if (first := self.own_view(op.inputs[0])) is None:
            return
        (value,) = op.outputs
        rows = self.made.buffers[first.buffer].rows
        out = self.made.buffer(value.name, first.width, rows=rows)
        inputs = tuple(self.views[one.name] for one in op.inputs)
        self.views[value.name] = out
        attributes: dict[str, Any] = {name: op.number(name) for name in op.attributes}
        self.made.op(op.kind, op.name, inputs, (out,), **attributes)

    # --- helpers ---

    def part(self, weight: WeightSpec, rows: Range, columns: Range | None = None) -> Part:
        return Part(tensor=weight.name, rows=rows, columns=columns, unit=weight.unit)

    def _pipe(self, kind: str, stage: int) -> None:
        """Node j of a stage receives from node ``j mod n`` of the n nodes of the stage before."""
        x = self.views["x"] = self.made.buffer("x", self.spec.hidden_size)
        others = self.split.stages[stage]
        if kind == "recv":
            peers = (others[self.share.rank % len(others)],)
            tag = len(self.graph.ops) + stage
            self.made.op("recv", f"recv_stage_{stage}", outputs=(x,), tag=tag, peers=peers)
        else:
            size = len(self.group)
            peers = tuple(n for rank, n in enumerate(others) if rank % size == self.share.rank)
            if peers:
                tag = len(self.graph.ops) + self.share.stage
                self.made.op("send", f"send_stage_{stage}", inputs=(x,), tag=tag, peers=peers)

    def gather(self, *, drafts: bool = False) -> None:
        owners = tuple(
            (node, share.vocabulary.start, share.vocabulary.stop)
            for node in self.split.stages[-1]
            if len((share := self.split.shares[node]).vocabulary)
        )
        own = self.share.vocabulary
        inputs = (self.made.buffer("own_logits", len(own), rows="logits"),) if len(own) else ()
        outputs: tuple[View, ...] = ()
        if self.share.node == 0:
            outputs = (self.made.buffer("logits", self.spec.vocab_size, rows="logits"),)
        tag = len(self.graph.ops) + len(self.split.stages) + drafts
        self.made.op("gather_logits", "gather_logits", inputs, outputs, tag=tag, owners=owners)

    def norm(
        self,
        op: GraphOp,
        source: View,
        target: View,
        *,
        groups: int,
        dim: int,
        eps: float | None = None,
        offset: float | None = None,
    ) -> None:
        own = self.spec.norm_offset if offset is None else offset
        vector = self.replicated(op.weights[0], offset=own)
        kind = "layer_norm" if op.kind == "layer_norm" else "rms_norm"
        self.made.op(
            kind, op.name, (source,), (target,), vector=vector,
            groups=groups, dim=dim, eps=self.spec.norm_eps if eps is None else eps,
        )  # fmt: skip

    def replicated(self, weight: WeightSpec | None, offset: float = 0.0) -> str | None:
        if weight is None:
            return None
        return self.own_vector(weight, Range(start=0, stop=weight.shape[0]), offset)

    def own_vector(self, weight: WeightSpec, elements: Range, offset: float = 0.0) -> str:
        """The name of some elements of a vector, with what is added to them."""
        self.made.vectors[weight.name] = Vector(
            name=weight.name,
            parts=(self.part(weight, elements),),
            size=len(elements),
            offset=offset,
        )
        return weight.name

    def reduce(
        self, op: GraphOp, grid: View, *, vector: str | None, contributors: tuple[int, ...]
    ) -> None:
        """The contributors' sums meet, with a vector: in the residual, or on their own."""
        (value,) = op.outputs
        out = self.made.buffer(value.name, value.width)
        self.views[value.name] = out
        alone = op.kind in ("linear_sum", "expert_sum")
        self.made.op(
            "all_reduce" if alone else "all_reduce_add",
            f"{op.name}.reduce",
            (grid,) if alone else (grid, out),
            (out,),
            vector=vector,
            tag=self.tag,
            group=tuple(self.group),
            contributors=contributors,
        )

    def owners(self, *cuts: Cut) -> tuple[int, ...]:
        """The nodes of the stage that own something of any of the cuts."""
        shares = self.split.shares
        return tuple(n for n in self.group if any(len(shares[n].range(cut)) for cut in cuts))

    def whole(self, weight: WeightSpec) -> Part:
        """All of a tensor."""
        rows, *columns = (Range(start=0, stop=size) for size in weight.shape)
        return self.part(weight, rows, columns[0] if columns else None)

    def elements_of(self, weight: WeightSpec) -> Range:
        """What the node has of a weight along its cut."""
        assert weight.cut is not None
        return self.share.elements(weight.cut)

    def elements(self, value: Value) -> Range:
        """What the node has of a value's width."""
        if value.cut is None:
            return Range(start=0, stop=value.width)
        return self.share.elements(value.cut)

    def own_view(self, value: Value) -> View | None:
        return self.views.get(value.name) if len(self.elements(value)) else None


#: Kinds of operations that have files of their own.
_OTHERS: Mapping[str, Callable[[Lowering, GraphOp], None]] = {
    "linear": lowering_products.linear,
    "linear_add": lowering_products.linear_add,
    "linear_sum": lowering_products.linear_add,
    "logits": lowering_products.logits,
    "head_norm": lowering_attention.head_norm,
    "part_norm": lowering_attention.part_norm,
    "rope": lowering_attention.rope,
    "attention": lowering_attention.attention,
    "norm_of_all": lowering_all_heads.norm_of_all,
    "route": lowering_mixture.route,
    "expert_linear": lowering_mixture.expert_linear,
    "expert_add": lowering_mixture.expert_add,
    "expert_sum": lowering_mixture.expert_add,
    "latent_attention": lowering_latent.latent_attention,
    "short_conv": lowering_delta.short_conv,
    "l2_norm": lowering_delta.l2_norm,
    "delta_gates": lowering_delta.delta_gates,
    "delta_rule": lowering_delta.delta_rule,
    "norm_beside": lowering_further.norm_beside,
    "pick_rows": lowering_further.pick_rows,
}
