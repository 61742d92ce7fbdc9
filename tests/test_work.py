"""What a step is said to take: the exchange that is foreseen is the one that runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandweave import _native
from bandweave.models.registry import build_graph
from bandweave.programs.operations import BY_KIND
from bandweave.programs.split import make_split
from bandweave.programs.work import FRAME_BYTES, Elements, Reduce, Step, step_work
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import random_source, tiny_spec
from tests.helpers.reference_nodes import Book
from tests.helpers.shares import head_ranges

NODES = 3


@pytest.mark.parametrize(
    ("hidden", "rows", "hops", "chunks"),
    [(64, 8, 1, 1), (64, 512, 1, 4), (256, 96, 1, 1), (256, 120, 2, 1), (256, 480, 2, 4)],
)
def test_sums_cross_as_foreseen(hidden: int, rows: int, hops: int, chunks: int) -> None:
    """Of node 1, which sends nothing but sums: bytes exactly, in one hop and two, in chunks."""
    spec = tiny_spec(hidden_size=hidden, num_heads=6, num_kv_heads=2, vocab_size=768)
    split = make_split(spec, (1,) * NODES)
    step = Step(rows=rows, keys=rows / 2, logit_rows=1)
    work = list(step_work(build_graph(spec), split, step, format="f32"))
    sums = [
        (one, times) for part, times in work for one in part.meetings if isinstance(one, Reduce)
    ]
    assert {(one.hops, one.chunks) for one, _ in sums} == {(hops, chunks)}
    foreseen = sum(
        times * one.hops * (NODES - 1) * (one.payload_bytes + FRAME_BYTES * one.chunks)
        for one, times in sums
    )
    more: dict[str, Any] = {"max_rows": rows}
    tokens = np.random.default_rng(3).integers(0, spec.vocab_size, size=rows).tolist()
    with NativeNodes(spec, random_source(spec, 3), shares=(1,) * NODES, **more) as nodes:
        nodes.run(Book(num_sequences=1, pages_each=8).step([(0, tokens)], all_logits=False))
        sent = nodes.nodes[1].bill(decode=False)["activation_bytes"]
    assert sent == foreseen


def test_more_nodes_scatter_smaller_sums() -> None:
    """docs/design.md: for three nodes from 24576 values on, for seven from 3824."""
    for nodes, values in ((3, 24576), (7, 3824)):
        assert _native.reduction(1, values - 64, nodes)[0] == 1
        assert _native.reduction(1, values + 64, nodes)[0] == 2
    assert _native.reduction(1000, 8192, 2)[0] == 1  # for two both send the same
    assert _native.reduction(1000, 8192, 1)[:2] == (1, 1)


@pytest.mark.parametrize(("rows", "width", "nodes"), [(0, 1, 2), (1, 0, 2), (1, 1, 0)])
def test_a_sum_of_nothing_is_refused(rows: int, width: int, nodes: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        _native.reduction(rows, width, nodes)


def test_every_cost_is_one_that_work_knows() -> None:
    costs = {
        "product", "experts", "heads", "attention", "state", "elements", "sum", "message",
        "nothing",
    }  # fmt: skip
    assert {one.cost for one in BY_KIND.values()} <= costs
    timed = {one.timed_as for one in BY_KIND.values()} - {""}
    assert timed <= BY_KIND.keys()


def test_a_node_without_heads_turns_no_angles() -> None:
    spec = tiny_spec(num_heads=2, num_kv_heads=1, vocab_size=768)
    split = make_split(spec, (1, 1, 1))
    work = list(
        step_work(build_graph(spec), split, Step(rows=4, keys=4, logit_rows=1), format="q8")
    )
    opening, _ = work[0]
    turning = [node for node, share in enumerate(split.shares) if head_ranges(spec, share)[2]]
    assert sorted(opening.local) == turning and len(turning) == 2
    for (angles,) in opening.local.values():
        assert isinstance(angles, Elements) and angles.count == 4 * spec.head_dim // 2
