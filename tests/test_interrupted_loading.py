"""Nodes that load are told of another plan: they stop at once, and keep what they have."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.have import Origin, make_partial
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.cluster.cluster import Cluster
from bandweave.engine.options import EngineOptions
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.weights.loading import LoadingInterrupted, load_weights
from bandweave.weights.packed import Weights
from bandweave.weights.panel_cache import PanelCache
from tests.helpers.connections import SECRET
from tests.helpers.lasting import Streams, wait_until
from tests.helpers.slow_reading import FOLDER, SERVE
from tests.helpers.uneven_model import write_uneven_model
from tests.helpers.workers import WorkerProcess
from tests.test_failover_hosts import DEMO, KINDS, expected, node_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uneven_model(tmp_path_factory.mktemp("interrupted") / "model")


def program(folder: Folder, shares: tuple[int, ...], rank: int, stages: int = 1) -> Program:
    split = make_split(folder.spec, tuple(map(Fraction, shares)), stages=stages)
    return lower(build_graph(folder.spec), split, rank)


def interrupted(
    wanted: Program, folder: Folder, form: str, looks: int, kept: Weights | None = None,
    cache: PanelCache | None = None,
) -> Weights:  # fmt: skip
    """What is in memory where nobody wants it after so many looks; all of it where that came
    first."""
    left = iter(range(looks))
    try:
        return load_weights(
            wanted, folder, form, kept=kept, cache=cache, least_cached=0, piece_bytes=4096,
            wanted=lambda: next(left, None) is not None,
        )  # fmt: skip
    except LoadingInterrupted as error:
        return error.weights


def check(weights: Weights, plain: Weights) -> None:
    for name, matrix in plain.matrices.items():
        assert (weights.matrices[name].panels == matrix.panels).all(), name
    for name, vector in plain.vectors.items():
        assert (weights.vectors[name] == vector).all(), name
    assert weights.content.tensors.keys() == plain.content.tensors.keys()
    for name, one in plain.content.tensors.items():
        found = weights.content.tensors[name]
        assert (found.known[one.known]).all(), name
        assert (found.sums[one.known] == one.sums[one.known]).all(), name


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [
        ((1, 1, 1), (1, 1), (1,)),
        ((3, 2, 1), (3, 2), (2, 1)),
        ((1,), (1, 1), (1, 1, 1)),
        ((1, 1), (1, 1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("form", ["q4", "bf16"])
def test_what_was_there_is_kept_and_every_byte_is_right(
    model: Path,
    before: tuple[int, ...],
    meanwhile: tuple[int, ...],
    after: tuple[int, ...],
    form: str,
) -> None:
    with Folder.open(model) as folder:
        wanted = program(folder, after, 0)
        plain = load_weights(wanted, folder, form)
        times = 0
        for looks in (0, 1, 3, 20, 60):
            held = load_weights(program(folder, before, 0), folder, form)
            partial = interrupted(program(folder, meanwhile, 0), folder, form, looks, held)
            if partial.partial is None:
                break  # it was sooner
            assert not partial.is_of(program(folder, meanwhile, 0))
            assert (
                0
                < partial.num_bytes
                <= partial.arena.used + sum(one.nbytes for one in partial.vectors.values())
            )
            weights = load_weights(wanted, folder, form, kept=partial)
            check(weights, plain)
            assert weights.kept_bytes > 0
            times += 1
        assert times


def test_interrupted_again_and_again(model: Path, tmp_path: Path) -> None:
    with Folder.open(model) as folder:
        cache = PanelCache(tmp_path / "panels")
        held: Weights | None = None
        for count, looks in ((1, 2), (2, 5), (3, 1), (2, 9)):
            some = program(folder, (1,) * count, 0, stages=min(2, count))
            held = interrupted(some, folder, "q4", looks, held, cache)
        wanted = program(folder, (1, 2), 1)
        check(load_weights(wanted, folder, "q4", kept=held), load_weights(wanted, folder, "q4"))


def test_what_is_fetched_ends(tmp_path: Path) -> None:
    """Even where others fetch it, and where a machine that gives it is asked first."""
    path = tmp_path / "weights"
    make_partial(path, Origin(kind="peer", endpoint="", repo="r", size=1 << 20, commit="c",
                              path="weights", etag="e"))  # fmt: skip

    class Fetcher:
        asked = 0

        def fetch(self, start: int, stop: int) -> Iterator[bytes]:
            Fetcher.asked += 1
            for _ in range(start, stop, 1024):
                yield bytes(1024)
                file.interrupted.set()

        def close(self) -> None: ...

    file = PartialFile.open(path, lambda origin: Fetcher())
    try:
        with pytest.raises(CheckpointError, match="fetching was ended"):
            file.read_into(memoryview(bytearray(1 << 20)), 0)
        assert Fetcher.asked == 1
        with pytest.raises(CheckpointError, match="fetching was ended"):
            file.read_into(memoryview(bytearray(1 << 20)), 0)
        assert Fetcher.asked == 1
        file.interrupted.clear()
        Fetcher.fetch = lambda self, start, stop: iter([bytes(stop - start)])  # type: ignore[method-assign]
        file.read_into(memoryview(bytearray(1 << 20)), 0)
    finally:
        file.close()


@pytest.mark.timeout(180)
def test_a_second_failure_ends_the_loading_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    slow = tmp_path / "slow"
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(serve=SERVE, threads=1)) for _ in range(3)]
        options = EngineOptions(
            shares=(Fraction(1),) * 3, hosts=tuple(one.address for one in workers), secret=SECRET,
            threads=1, run=RunOptions(context=512, streams=3),
        )  # fmt: skip
        folder = stack.enter_context(Folder.open(DEMO, weights=False))
        cluster = stack.enter_context(Cluster.start(folder, options))
        stack.callback(slow.unlink, missing_ok=True)
        streams = Streams(cluster, KINDS)
        streams.wait_for(100)
        first = node_of(workers[0])
        slow.touch()
        os.kill(node_of(workers[2]), signal.SIGKILL)
        assert wait_until(lambda: (tmp_path / str(first)).exists())
        os.kill(node_of(workers[1]), signal.SIGKILL)
        # All that it had to read for the first failure takes a minute.
        workers[0].read("loading was interrupted")
        assert node_of(workers[0]) == first
        slow.unlink()
        assert streams.hearts() == expected()
        kinds = [one.kind for one in cluster.recoveries()]
        assert kinds.count("failed") >= 2
