"""Programs: the nodes' parts cover every tensor, and their exchanges meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bandweave.models.attention_spec import Attention, HeadsSpec, LinearSpec
from bandweave.models.cut import COLUMN_UNIT
from bandweave.models.graph import Graph
from bandweave.models.graph_op import Split as WeightSplit
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.program import Op, Part, Program
from bandweave.programs.split import NodeShare, Split, make_split
from bandweave.ranges import Range
from tests.helpers.random_model import tiny_spec
from tests.helpers.shares import head_ranges, kv_head_ranges
from tests.helpers.split_strategies import requests, specs

Lowered = tuple[ModelSpec, Graph, Split, list[Program]]

Owners = tuple[tuple[int, int, int], ...]

EXCHANGES = ("embed", "send", "recv", "all_reduce_add", "gather_logits")


@st.composite
def lowered(draw: st.DrawFn) -> Lowered:
    """Any small model's programs on any nodes that it can be split over."""
    spec, (shares, stages) = draw(specs()), draw(requests())
    try:
        split = make_split(spec, shares, stages=stages)
    except ValueError:
        assume(False)
        raise
    graph = build_graph(spec)
    return spec, graph, split, [lower(graph, split, node) for node in range(split.num_nodes)]


properties = settings(max_examples=60, deadline=None)


def count(parts: Sequence[Part], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """How many of the parts hold each element of a tensor."""
    held = np.zeros(shape, np.int64)
    for part in parts:
        assert 0 <= part.rows.start < part.rows.stop <= shape[0], part
        if part.columns is None:
            held[part.rows.start : part.rows.stop] += 1
        else:
            assert 0 <= part.columns.start < part.columns.stop <= shape[1], part
            held[part.rows.start : part.rows.stop, part.columns.start : part.columns.stop] += 1
    return held


def parts_of(program: Program) -> list[Part]:
    kept = [*program.weights.values(), *program.vectors.values()]
    return [part for one in kept for part in one.parts if len(part.rows)]


@properties
@given(lowered())
def test_the_nodes_parts_cover_every_tensor(case: Lowered) -> None:
    spec, graph, split, programs = case
    by_tensor: dict[str, list[Part]] = {}
    for program in programs:
        for part in parts_of(program):
            by_tensor.setdefault(part.tensor, []).append(part)
    shapes = {weight.name: weight for weight in graph.weights()}
    assert set(by_tensor) <= set(shapes)
    for name, weight in shapes.items():
        held = count(by_tensor.get(name, []), weight.shape)
        if name == "embed_tokens":  # read row by row where tokens need it; the head if tied
            assert (held == int(spec.tied_embeddings)).all()
        elif weight.split is WeightSplit.REPLICATED:
            assert held.min() == held.max() >= 1, name
        elif name.split(".")[2:3] in (["k_proj"], ["v_proj"]):
            layer = int(name.split(".")[1])
            attention = spec.layers[layer].attention
            assert isinstance(attention, HeadsSpec)
            holders = [
                kv_head_ranges(spec, share)[attention]
                for share in split.shares
                if layer in _indices(share.layers)
            ]
            heads = held.reshape(attention.num_kv_heads, -1)
            for head, found in enumerate(heads):
                readers = sum(head in _indices(own) for own in holders)
                assert (found == readers).all() and readers >= 1, (name, head)
        else:
            assert (held == 1).all(), name


def _indices(r: Range) -> range:
    return range(r.start, r.stop)


@properties
@given(lowered())
def test_nodes_hold_only_what_their_layers_need(case: Lowered) -> None:
    spec, graph, split, programs = case
    layer_of = {f"layers.{op.layer}": op.layer for op in graph.ops if op.layer is not None}
    for program, share in zip(programs, split.shares, strict=True):
        last = share.stage == len(split.stages) - 1
        for part in parts_of(program):
            layer = layer_of.get(".".join(part.tensor.split(".")[:2]))
            assert layer in _indices(share.layers) if layer is not None else last, part
        cached, remembered = layers_with_heads(spec, share)
        assert len(program.caches) == cached
        assert len(program.states) == 2 * remembered
        kv_heads = {len(own) for own in kv_head_ranges(spec, share).values()} or {1}
        assert {cache.kv_heads for cache in program.caches} <= kv_heads


def layers_with_heads(spec: ModelSpec, share: NodeShare) -> tuple[int, int]:
    """How many layers with a cache, and with a state, have heads on the node."""
    counts = [0, 0]
    for layer in spec.layers[share.layers.start : share.layers.stop]:
        own, _ = share.heads_of(layer.attention)
        counts[isinstance(layer.attention, LinearSpec)] += bool(len(own))
    return counts[0], counts[1]


@properties
@given(lowered())
def test_weights_fit_their_parts_and_are_cut_at_units(case: Lowered) -> None:
    spec, _, _, programs = case
    for program in programs:
        for weight in program.weights.values():
            sizes = [(len(part.rows), len(part.columns or ())) for part in weight.parts]
            assert weight.outputs == sum(outputs for outputs, _ in sizes) > 0
            assert all(inputs == weight.inputs for _, inputs in sizes)
            part_name = weight.name.rsplit(".", 1)[-1]
            unit = COLUMN_UNIT if part_name == "down_proj" else weight.inputs
            if part_name in ("o_proj", "delta_o_proj"):
                unit = head_unit(spec.layers[int(weight.name.split(".")[1])].attention)
            assert weight.unit == unit, weight
            assert all(part.columns and part.columns.start % unit == 0 for part in weight.parts)
        for vector in program.vectors.values():
            kernel = 1
            if vector.name.endswith("short_conv"):
                attention = spec.layers[int(vector.name.split(".")[1])].attention
                assert isinstance(attention, LinearSpec)
                kernel = attention.conv_kernel
            assert vector.size == kernel * sum(len(part.rows) for part in vector.parts) > 0


def head_unit(attention: Attention) -> int:
    """Columns of a head's output, of all that share a key where it has a state."""
    if isinstance(attention, LinearSpec):
        return attention.sharing * attention.value_dim
    return attention.head_dim if isinstance(attention, HeadsSpec) else attention.v_dim


@properties
@given(lowered())
def test_operations_read_what_was_written_and_stay_inside_buffers(case: Lowered) -> None:
    spec, _, split, programs = case
    for program, share in zip(programs, split.shares, strict=True):
        written: set[str] = set()
        for op in program.ops:
            for view in (*op.inputs, *op.outputs):
                assert 0 <= view.offset < view.offset + view.width
                assert view.offset + view.width <= program.buffers[view.buffer].width
            for view in op.inputs:
                idle = view.buffer == "grid" and share.node not in nodes_of(op, "contributors")
                assert idle or view.buffer in written, op
            written |= {view.buffer for view in op.outputs}
            assert op.weight is None or op.weight in program.weights
            assert op.vector is None or op.vector in program.vectors
            if op.kind == "attention":
                ((attention, kv),) = kv_head_ranges(spec, share).items()
                own = head_ranges(spec, share)[attention.num_heads]
                read = [place + kv.start for place in nodes_of(op, "kv_map")]
                heads = range(own.start, own.stop)
                assert read == [head // attention.heads_per_kv_head for head in heads]
        kinds = Counter(op.kind for op in program.ops)
        cached, remembered = layers_with_heads(spec, share)
        assert kinds["attention"] + kinds["latent_attention"] == cached
        assert kinds["delta_rule"] == kinds["short_conv"] == remembered


def nodes_of(op: Op, attribute: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], op.attributes[attribute])


def exchanges(program: Program) -> dict[int, Op]:
    """A program's exchanges by tag; no tag is used twice."""
    found = [op for op in program.ops if op.kind in EXCHANGES]
    by_tag = {cast(int, op.attributes["tag"]): op for op in found}
    assert len(by_tag) == len(found)
    return by_tag


@properties
@given(lowered())
def test_exchanges_exist_on_all_nodes_that_take_part(case: Lowered) -> None:
    _, _, split, programs = case
    by_node = [exchanges(program) for program in programs]
    for tag in sorted({tag for tags in by_node for tag in tags}):
        having = {node: tags[tag] for node, tags in enumerate(by_node) if tag in tags}
        (kind,) = {"pipe" if op.kind in ("send", "recv") else op.kind for op in having.values()}
        if kind == "pipe":
            _check_pipe(having)
        elif kind == "gather_logits":
            _check_gather(split, having)
        else:
            (group,) = {nodes_of(op, "group") for op in having.values()}
            assert tuple(having) == group
            assert group == tuple(split.stages[split.shares[group[0]].stage])
    for left in by_node:  # nobody waits for what the other sends later
        for right in by_node:
            assert [tag for tag in left if tag in right] == [tag for tag in right if tag in left]


def _check_pipe(having: dict[int, Op]) -> None:
    sent = sorted(
        (node, peer)
        for node, op in having.items()
        if op.kind == "send"
        for peer in nodes_of(op, "peers")
    )
    received = sorted(
        (nodes_of(op, "peers")[0], node) for node, op in having.items() if op.kind == "recv"
    )
    assert sent == received and sent


def _check_gather(split: Split, having: dict[int, Op]) -> None:
    (owners,) = {cast(Owners, op.attributes["owners"]) for op in having.values()}
    ranges = [(s.node, s.vocabulary.start, s.vocabulary.stop) for s in split.shares if s.vocabulary]
    assert list(owners) == ranges
    assert set(having) == {0} | {node for node, _, _ in ranges}
    assert [bool(op.outputs) for op in having.values()] == [node == 0 for node in having]
    assert [bool(op.inputs) for op in having.values()] == [
        any(node == owner for owner, _, _ in ranges) for node in having
    ]


@properties
@given(lowered())
def test_every_node_of_a_stage_but_the_first_receives_once(case: Lowered) -> None:
    _, _, split, programs = case
    for program, share in zip(programs, split.shares, strict=True):
        kinds = Counter(op.kind for op in program.main_ops)
        assert kinds["recv"] == int(share.stage > 0)
        assert kinds["embed"] == int(share.stage == 0)
        assert kinds["send"] <= int(share.stage < len(split.stages) - 1)
        assert kinds["all_reduce_add"] == 2 * len(share.layers)
        # With several stages the last one's first node can give node 0 its hidden states.
        last = max(split.stages)[0]  # stages come in the order of their nodes
        there = [op.kind for op in program.draft_ops]
        assert len(split.stages) > 1 or not there
        if len(split.stages) > 1:
            giving = ["pick_rows", "rms_norm", "send"]
            assert there == {0: ["recv"], last: giving}.get(share.node, [])


@properties
@given(lowered())
def test_contributors_are_the_nodes_that_have_a_part_of_the_sum(case: Lowered) -> None:
    _, _, split, programs = case
    for nodes in split.stages:
        grids = ("linear_grid", "expert_grid")
        own = [{op.name: op for op in programs[n].ops if op.kind in grids} for n in nodes]
        for program in (programs[node] for node in nodes):
            for op in program.ops:
                if op.kind != "all_reduce_add":
                    continue
                name = op.name.removesuffix(".reduce")
                having = tuple(n for n, ops in zip(nodes, own, strict=True) if name in ops)
                assert nodes_of(op, "contributors") == having != ()


@pytest.mark.parametrize(("shares", "stages"), [((1,), 1), ((3, 2, 1), 1), ((1, 1, 1), 2)])
def test_a_program_can_be_printed(shares: tuple[int, ...], stages: int) -> None:
    spec = tiny_spec()
    split = make_split(spec, shares, stages=stages)
    for node in range(len(shares)):
        program = lower(build_graph(spec), split, node)
        lines = str(program).splitlines()
        head = f"node {node} of {len(shares)}: {len(program.ops)} operations"
        if stages > 1:
            head += f", from {len(program.main_ops)} on of a pass of their own"
        assert lines[0] == head
        assert len(lines) == 1 + len(program.ops)
