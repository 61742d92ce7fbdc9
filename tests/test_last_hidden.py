"""What the head reads, on whatever node that is: the same bits on any split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import Step
from bandweave.executors.last_hidden import LastHidden
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.weights.loading import load_weights
from tests.helpers.family_specs import FAMILY_SPECS
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32, ODD_SPECS, random_source, tiny_spec
from tests.helpers.reference_nodes import Book, ReferenceNodes
from tests.test_further_layer import SPECS as FURTHER_SPECS

SPECS = {
    "dense": tiny_spec(num_layers=4),
    "hybrid": ODD_SPECS["states"],
    "layer norms": FAMILY_SPECS["cohere2"] if "cohere2" in FAMILY_SPECS else tiny_spec(),
}
PIECES = [(0, [5, 6, 7, 8]), (1, [9, 10]), (2, [11] * 70)]
ROWS = (3, 5, 75)


def hidden(
    spec: ModelSpec, shares: Sequence[int], stages: int, *, further: bool = False
) -> tuple[F32, F32]:
    """Of the prompts' last rows, and again after another step, so that the pass leaves no trace."""
    source = random_source(spec, 1, further=spec.further is not None)
    graph = build_graph(spec, further=further)
    split = make_split(spec, tuple(map(Fraction, shares)), stages=stages)
    program = lower(graph, split, 0)
    weights = load_weights(program, source, "f32")
    nodes = NativeNodes(
        spec, source, weight_format="f32", kv_format="f32", shares=shares, stages=stages,
        graph=graph,
    )  # fmt: skip
    book = Book(num_sequences=3, pages_each=2)
    with nodes as engine:
        first = engine.nodes[0]
        last = LastHidden(program, weights.vectors, first, first.floats, "embeddings")
        found = []
        for pieces in (PIECES, [(0, [1]), (2, [2, 3])]):
            step = book.step(pieces, all_logits=False)
            engine.run(step)
            rows = [row for row, wants in enumerate(step.wants_logits) if wants]
            found.append(last.read(step, rows))
    return found[0], found[1]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("shares", "stages"), [((1, 1), 1), ((1, 1), 2), ((2, 1, 1), 2)])
def test_any_split_gives_the_rows_of_one_node(
    name: str, shares: tuple[int, ...], stages: int
) -> None:
    expected = hidden(SPECS[name], (1,), 1)
    found = hidden(SPECS[name], shares, stages)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and np.isfinite(ours).all()
        assert (ours.view(np.uint32) == theirs.view(np.uint32)).all()


def test_a_layer_that_drafts_keeps_them() -> None:
    spec = FURTHER_SPECS["heads"]
    plain, drafting = hidden(spec, (1,), 1), hidden(spec, (1,), 1, further=True)
    for ours, theirs in zip(drafting, plain, strict=True):
        assert (ours.view(np.uint32) == theirs.view(np.uint32)).all()
    with pytest.raises(ValueError, match="leave out --stages or --speculate mtp"):
        hidden(spec, (1, 1), 2, further=True)


@pytest.mark.parametrize("shares", [(1,), (1, 1), (1, 2, 1)])
def test_embeddings_over_stages(shares: tuple[int, ...]) -> None:
    """Through the engine: several at a time, beside an answer, with the scores of one."""
    params = SamplingParams(temperature=0.0, max_tokens=1)
    requests = [
        Request(tokens=tuple(range(3, 3 + 40 * n)), params=params, embeds=True, logprobs=scored,
                scored=scored is not None)
        for n, scored in ((1, None), (2, 0), (3, None), (8, None))
    ]  # fmt: skip
    requests.append(Request(tokens=(5, 6), params=replace(params, max_tokens=30)))
    run = RunOptions(context=512, streams=4)
    options = EngineOptions(shares=tuple(map(Fraction, shares)), stages=len(shares), run=run)
    with Folder.open(demo_folder()) as folder:
        with Engine.start(folder, replace(options, shares=(Fraction(1),), stages=1),
                          ThreadLauncher()) as engine:  # fmt: skip
            expected = engine.generate(requests, digest=True)
        with Engine.start(folder, options, ThreadLauncher()) as engine:
            found = engine.generate(requests, digest=True)
    assert [one.embedding for one in found] == [one.embedding for one in expected]
    assert [one.logits_digest for one in found] == [one.logits_digest for one in expected]
    assert all(len(one.embedding) == len(found[0].embedding) > 0 for one in found[:4])


def test_the_reference_gives_the_same() -> None:
    spec = SPECS["hybrid"]
    source = random_source(spec, 1)
    split = make_split(spec, (Fraction(1),) * 2, stages=2)
    program = lower(build_graph(spec), split, 0)
    book = Book(num_sequences=3, pages_each=2)
    nodes = ReferenceNodes(
        spec, source, num_pages=16, weight_format="f32", kv_dtype="f32", shares=(1, 1), stages=2
    )
    with nodes as engine:
        step: Step = book.step(PIECES, all_logits=False)
        engine.run(step)
        first = engine.nodes[0]
        found = LastHidden(program, {}, first, first.floats, "embeddings").read(step, ROWS)
    expected, _ = hidden(spec, (1,), 1)
    assert (found.view(np.uint32) == expected.view(np.uint32)).all()
