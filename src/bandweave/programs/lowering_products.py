"""Lowering of products: outputs that nodes divide, inputs that nodes divide, and logits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from bandweave.models.graph_op import GraphOp, WeightSpec
from bandweave.models.graph_op import Split as WeightSplit
from bandweave.programs.program import Part, Vector, View, Weight
from bandweave.ranges import Range

if TYPE_CHECKING:
    from bandweave.programs.lowering import Lowering


def linear(low: Lowering, op: GraphOp) -> None:
    """Products of one input whose outputs are split, or whole on every node."""
    own = [low.elements(value) for value in op.outputs]
    widths = [len(rows) for rows in own]
    if not sum(widths):
        return
    name = op.name.rsplit(".", 1)[-1].removesuffix("_proj")
    target = low.made.buffer(name, sum(widths))
    offset, made = 0, []
    for value, weight, bias, rows in zip(op.outputs, op.weights, op.biases, own, strict=True):
        low.views[value.name] = View(buffer=name, offset=offset, width=len(rows))
        offset += len(rows)
        if len(rows):  # a node may have no heads, but what all nodes have
            columns = Range(start=0, stop=weight.shape[1])
            made.append((low.part(weight, rows, columns), bias, low.views[value.name]))
    # A matrix has one format; those of an operation may be stored in several.
    alike = groupby(made, lambda one: low.formats.get(one[0].tensor, ""))
    runs = [list(run) for _, run in alike]
    for run in runs:
        full = op.name if len(runs) == 1 else f"{op.name}.{run[0][0].tensor}"
        _product(low, op, full, run, target)


def _product(
    low: Lowering,
    op: GraphOp,
    name: str,
    run: Sequence[tuple[Part, WeightSpec | None, View]],
    target: View,
) -> None:
    """Products of one input whose matrices are stacked; their outputs lie side by side."""
    outputs, inputs = sum(view.width for *_, view in run), op.weights[0].shape[1]
    low.made.weights[name] = Weight(
        name=name,
        parts=tuple(part for part, *_ in run),
        outputs=outputs,
        inputs=inputs,
        unit=inputs,
        format=low.formats.get(run[0][0].tensor, ""),
    )
    vector = None
    if any(bias is not None for _, bias, _ in run):
        vector = f"{name}.bias"
        pieces = tuple(low.part(bias, part.rows) for part, bias, _ in run if bias is not None)
        low.made.vectors[vector] = Vector(name=vector, parts=pieces, size=outputs)
    out = replace(target, offset=run[0][2].offset, width=outputs)
    source = low.views[op.inputs[0].name]
    low.made.op("linear", name, (source,), (out,), weight=name, vector=vector)


def linear_add(low: Lowering, op: GraphOp) -> None:
    """A product whose inputs are split, and how its sums end."""
    inputs, x = op.inputs[-1], op.outputs[0]
    (matrix,), cut = op.weights, inputs.cut
    assert matrix.split is WeightSplit.SHARDED_TO_ALL and cut is not None
    grid = low.made.buffer("grid", x.width, dtype="grid")
    columns = low.share.elements(cut)
    if len(columns):
        rows = Range(start=0, stop=x.width)
        low.made.weights[op.name] = Weight(
            name=op.name,
            parts=(low.part(matrix, rows, columns),),
            outputs=x.width,
            inputs=len(columns),
            unit=cut.unit,
        )
        source = low.views[inputs.name]
        if source.width > len(columns):  # every node has all of it
            source = replace(source, offset=columns.start, width=len(columns))
        low.made.op("linear_grid", op.name, (source,), (grid,), weight=op.name)
    vector = low.replicated(op.biases[0])
    low.reduce(op, grid, vector=vector, contributors=low.owners(cut))


def logits(low: Lowering, op: GraphOp) -> None:
    """The node's rows of the vocabulary, and their way to node 0."""
    own = low.share.vocabulary
    if len(own):
        inputs = op.inputs[0].width
        part = low.part(op.weights[0], own, Range(start=0, stop=inputs))
        low.made.weights["lm_head"] = Weight(
            name="lm_head", parts=(part,), outputs=len(own), inputs=inputs, unit=inputs
        )
        target = low.made.buffer("own_logits", len(own), rows="logits")
        source = low.views[op.inputs[0].name]
        low.made.op("linear", "lm_head", (source,), (target,), weight="lm_head")
        if (factor := op.number("factor")) != 1:
            low.made.op("scale", "lm_head.scale", (target,), (target,), factor=factor)
        if cap := op.number("cap"):
            low.made.op("soft_cap", "lm_head.cap", (target,), (target,), cap=cap)
    if len(own) or low.share.node == 0:
        low.gather(drafts=op.drafts)
