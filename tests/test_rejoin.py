"""Nodes outlive a peer: they join again without it, keep what they hold, and answer the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.models.registry import build_graph
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.nodes.process import SERVE
from bandweave.programs.lowering import lower
from bandweave.programs.split import Split, make_split
from bandweave.run_options import RunOptions
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import packed_bytes
from tests.helpers.connections import SECRET
from tests.helpers.workers import WorkerProcess

GREEDY = SamplingParams(temperature=0.0, max_tokens=10)
REQUESTS = [
    Request(tokens=tuple((7 * i * i + 3 * n) % 500 for i in range(20 + 70 * n)), params=params)
    for n, params in enumerate((GREEDY, SamplingParams(temperature=1.0, seed=3, max_tokens=10)))
]
ENDLESS = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))
OPTIONS = EngineOptions(
    shares=(Fraction(3), Fraction(2), Fraction(1)), threads=1, run=RunOptions(context=1024)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rejoin") / "model"
    shape = find_shape("llama-3.2-1b", layers=3, hidden=192, heads=12, kv_heads=3, head_dim=16,
                       intermediate=704, vocab=1000, context=1024)  # fmt: skip
    synthesise(shape, path)
    return path


@pytest.fixture(scope="module")
def expected(model: Path) -> list[Result]:
    with Folder.open(model) as folder:
        options = replace(OPTIONS, shares=(Fraction(1),))
        with Engine.start(folder, options) as engine:
            return engine.generate(REQUESTS, digest=True)


def heart(results: list[Result]) -> list[tuple[object, ...]]:
    return [(one.tokens, one.reason, one.logits_digest) for one in results]


def common_bytes(folder: Folder, before: Split, after: Split, ranks: dict[int, int]) -> list[int]:
    """Packed bytes that a node of each new rank, whose old one ``ranks`` gives, can keep."""
    graph, kept = build_graph(folder.spec), []
    for rank in range(after.num_nodes):
        old = load_weights(lower(graph, before, ranks[rank]), folder, "q4")
        new = load_weights(lower(graph, after, rank), folder, "q4", kept=old)
        kept.append(new.kept_bytes)
    return kept


@contextmanager
def workers(count: int) -> Iterator[HostLauncher]:
    with ExitStack() as stack:
        nodes = [stack.enter_context(WorkerProcess(serve=SERVE)) for _ in range(count)]
        yield HostLauncher([worker.address for worker in nodes], SECRET)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("dies", [0, 1, 2])
def test_a_peer_dies_and_the_others_go_on(model: Path, expected: list[Result], dies: int) -> None:
    launcher = LocalLauncher()
    with Folder.open(model) as folder, Engine.start(folder, OPTIONS, launcher) as engine:
        assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
        handles = list(launcher._handles)
        with engine.stream(ENDLESS) as stream:
            next(iter(stream))
            os.kill(handles[dies].pid, signal.SIGKILL)  # type: ignore[attr-defined]
            with pytest.raises(StepError, match=rf"^node {dies} \(pid \d+\)"):
                stream.result()
        before = engine.split
        engine.rejoin((Fraction(2), Fraction(1)))
        assert [node.name for node in engine.nodes] == [
            handle.name for handle in handles if handle.node != dies
        ]
        ranks = dict(enumerate(node for node in range(3) if node != dies))
        kept = common_bytes(folder, before, engine.split, ranks)
        assert [node.kept_bytes for node in engine.nodes] == kept and all(kept)
        assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
        assert len(engine.statistics()) == 2


@pytest.mark.timeout(180)
def test_workers_join_again(model: Path, expected: list[Result]) -> None:
    options = replace(OPTIONS, shares=(Fraction(1),) * 3)
    with (
        workers(3) as launcher,
        Folder.open(model) as folder,
        Engine.start(folder, options, launcher) as engine,
    ):
        assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
        stream = engine.stream(ENDLESS)
        next(iter(stream))
        launcher._handles[1].kill()
        with pytest.raises(StepError):
            stream.result()
        for shares in ((Fraction(1),) * 2, (Fraction(5), Fraction(1))):
            engine.rejoin(shares)
            assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
            assert all(node.kept_bytes for node in engine.nodes)


@pytest.mark.timeout(120)
def test_the_same_nodes_in_the_same_shares_read_nothing(
    model: Path, expected: list[Result]
) -> None:
    with Folder.open(model) as folder, Engine.start(folder, OPTIONS) as engine:
        for _ in range(3):
            engine.rejoin(OPTIONS.shares)
            assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
            for node in engine.nodes:
                assert node.kept_bytes >= 0.99 * node.weight_bytes - 20_000


@pytest.mark.timeout(120)
def test_one_node_alone_can_be_what_is_left(model: Path, expected: list[Result]) -> None:
    launcher = LocalLauncher()
    options = replace(OPTIONS, shares=(Fraction(1),) * 2)
    with Folder.open(model) as folder, Engine.start(folder, options, launcher) as engine:
        os.kill(launcher._handles[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(StepError):
            engine.generate([ENDLESS])
        engine.rejoin()
        assert heart(engine.generate(REQUESTS, digest=True)) == heart(expected)
        os.kill(launcher._handles[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(StepError):
            engine.generate([ENDLESS])
        with pytest.raises(StepError, match="^no node is left$"):
            engine.rejoin()


@pytest.mark.parametrize("shares", [(1, 1), (2, 1), (1, 5), (1, 0, 1)])
@pytest.mark.parametrize("others", [(1,), (1, 1), (3, 2, 1)])
@pytest.mark.parametrize("weight_format", ["q4", "bf16"])
def test_kept_panels_are_those_that_would_be_packed(
    model: Path, shares: tuple[int, ...], others: tuple[int, ...], weight_format: str
) -> None:
    with Folder.open(model) as folder:
        graph = build_graph(folder.spec)
        splits = [
            make_split(folder.spec, tuple(map(Fraction, one))) for one in (others, shares)
            if 0 not in one
        ]  # fmt: skip
        before, after = splits[0], splits[-1]
        for rank in range(after.num_nodes):
            program = lower(graph, after, rank)
            plain = load_weights(program, folder, weight_format)
            old = load_weights(
                lower(graph, before, min(rank, before.num_nodes - 1)), folder, weight_format
            )
            weights = load_weights(program, folder, weight_format, kept=old)
            assert 0 < weights.kept_bytes <= packed_bytes(program, weight_format)
            for name, matrix in plain.matrices.items():
                assert (weights.matrices[name].panels == matrix.panels).all(), name
            assert weights.content.tensors.keys() == plain.content.tensors.keys()
