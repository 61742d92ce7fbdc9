"""Spare nodes take the place of others, and standby weights spare them the loading."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import FileRows
from bandweave.cluster.cluster import Cluster
from bandweave.cluster.standby import StandbySummary, told
from bandweave.engine.options import EngineOptions
from bandweave.models.registry import build_graph
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.programs.lowering import lower
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.run_options import RunOptions
from bandweave.serving.texts import open_tokenizer
from bandweave.weights import standby
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import packed_bytes
from bandweave.weights.panel_cache import PanelCache
from tests.helpers.connections import SECRET
from tests.helpers.lasting import Streams, asks, harm, learn, pids, undisturbed, wait_until
from tests.helpers.uneven_model import write_uneven_model
from tests.test_failover_hosts import expected, node_of, worker

RUN = RunOptions(context=512, streams=3)
THREE = EngineOptions(shares=tuple(map(Fraction, (2, 3, 2))), threads=1, run=RUN)
DEMO = str(demo_folder())


def start(folder: Folder, options: EngineOptions) -> tuple[Cluster, LocalLauncher]:
    launcher = LocalLauncher(spare=options.spare)
    cluster = Cluster.start(folder, options, launcher)
    learn(cluster, open_tokenizer(folder), folder.spec.vocab_size)
    return cluster, launcher


def ready(cluster: Cluster) -> bool:
    return cluster.standby is not None and cluster.standby.over


@pytest.mark.parametrize("node", [0, 1])
def test_with_standby_weights_nothing_is_loaded(node: int) -> None:
    expected = undisturbed(DEMO, THREE)
    options = replace(THREE, standby="memory")
    with Folder.open(DEMO) as folder:
        cluster, launcher = start(folder, options)
        with cluster:
            assert wait_until(lambda: ready(cluster))
            assert cluster.standby is not None and not cluster.standby.reasons
            assert all(cluster.standby.num_bytes)
            streams = Streams(cluster, asks())
            streams.wait_for(150)
            taken: list[tuple[int, int]] = []
            harm(launcher, node)

            def looked() -> bool:
                if len(cluster.nodes) == 2 and not taken:
                    taken.extend((one.kept_bytes, one.weight_bytes) for one in cluster.nodes)
                return bool(taken)

            assert wait_until(looked)
            assert streams.hearts() == expected
            # Vectors are no matrices; all matrices were there.
            assert all(weight - kept < 64_000 for kept, weight in taken), taken
            first = cluster.recoveries()[0]
            assert first.loaded_s < 1.5
            assert wait_until(lambda: len(cluster.nodes) == 3 and ready(cluster))


def test_a_spare_node_stands_where_one_was_lost() -> None:
    """The others keep just what they had."""
    expected = undisturbed(DEMO, THREE)
    options = replace(THREE, spare=1)
    with Folder.open(DEMO) as folder:
        cluster, launcher = start(folder, options)
        with cluster:
            assert wait_until(
                lambda: [one.state for one in cluster.health().nodes].count("spare") == 1
            )
            time.sleep(2.5)  # nobody takes it in without need
            assert len(cluster.nodes) == 3 and len(pids(launcher)) == 4
            before = {one.name: (one.share, one.weight_bytes) for one in cluster.nodes}
            streams = Streams(cluster, asks())
            streams.wait_for(150)
            gone = cluster.nodes[1].name
            harm(launcher, 1)
            assert streams.hearts() == expected
            first = cluster.recoveries()[0]
            assert (first.nodes_before, first.nodes_after) == (3, 3)
            names = [one.name for one in cluster.nodes]
            assert gone not in names and names[1].startswith("node 3 ")
            assert cluster.nodes[1].share.columns == before[gone][0].columns
            for one in cluster.nodes:
                if one.name in before:
                    assert one.kept_bytes >= 0.99 * before[one.name][1] - 64_000
            # The one that died is the spare one now.
            assert wait_until(
                lambda: [one.state for one in cluster.health().nodes].count("spare") == 1
            )
            assert len(cluster.nodes) == 3
            harm(launcher, 3)
            assert Streams(cluster, asks()).hearts() == expected
            assert wait_until(lambda: len(cluster.nodes) == 3)
            assert cluster.nodes[1].name.startswith("node 1 ")


def test_a_spare_host_is_held_ready_and_taken_at_once() -> None:
    """It is connected, so that nobody else has it, and its process waits."""
    with worker() as first, worker() as second, worker() as third:
        options = EngineOptions(
            shares=(Fraction(1),) * 2, hosts=(first.address, second.address), secret=SECRET,
            spare=1, spare_hosts=(third.address,), threads=1, run=RUN, standby="memory",
        )  # fmt: skip
        with Folder.open(DEMO, weights=False) as folder, Cluster.start(folder, options) as cluster:
            assert wait_until(
                lambda: [one.state for one in cluster.health().nodes][2:] == ["spare"]
            )
            streams = Streams(cluster, asks(grammars=False))
            streams.wait_for(150)
            os.kill(node_of(first), signal.SIGKILL)
            assert streams.hearts() == expected()
            failed = cluster.recoveries()[0]
            assert (failed.nodes_before, failed.nodes_after, failed.kind) == (2, 2, "failed")
            assert third.address in cluster.nodes[0].name
            assert wait_until(lambda: cluster.health().nodes[0].state == "spare")


# --- what is lacking ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uneven_model(tmp_path_factory.mktemp("standby") / "model")


def programs(
    folder: Folder, shares: tuple[int, ...], stages: int, rank: int
) -> tuple[Program, list[Program]]:
    """A node's own, and those that it would have without each of the others."""
    graph, count = build_graph(folder.spec), len(shares)
    own = lower(graph, make_split(folder.spec, tuple(map(Fraction, shares)), stages=stages), rank)
    others = []
    for gone in range(count):
        if gone == rank:
            continue
        left = tuple(Fraction(one) for node, one in enumerate(shares) if node != gone)
        split = make_split(folder.spec, left, stages=min(stages, count - 1))
        others.append(lower(graph, split, rank - (gone < rank)))
    return own, others


@pytest.mark.parametrize(
    ("shares", "stages"),
    [((1, 1), 1), ((1, 1, 1), 1), ((3, 2, 1), 1), ((1, 1, 1), 3), ((2, 1, 1, 1), 2)],
)
@pytest.mark.parametrize("weight_format", ["q4", "bf16"])
def test_nothing_is_read_and_every_byte_is_right(
    model: Path, shares: tuple[int, ...], stages: int, weight_format: str
) -> None:
    sizes: list[int] = []
    with Folder.open(model) as folder:
        alone = make_split(folder.spec, (Fraction(1),))
        whole = packed_bytes(lower(build_graph(folder.spec), alone, 0), weight_format)
        for rank in range(len(shares)):
            own, others = programs(folder, shares, stages, rank)
            reads: list[str] = []
            for other in others:
                held = standby.Standby()
                standby.hold_ready(
                    standby.batches(own, others, folder.shape, weight_format, 100_000),
                    folder, weight_format, held, wanted=lambda: True,
                )  # fmt: skip
                kept = load_weights(own, folder, weight_format)
                counted = _Counting(folder, reads)
                weights = load_weights(
                    other, counted, weight_format, kept=kept, standby=held.batches
                )
                plain = load_weights(other, folder, weight_format)
                for name, matrix in plain.matrices.items():
                    assert (weights.matrices[name].panels == matrix.panels).all(), name
                for name, vector in plain.vectors.items():
                    assert (weights.vectors[name] == vector).all(), name
                assert weights.content.tensors.keys() == plain.content.tensors.keys()
                for name, one in plain.content.tensors.items():
                    sums = weights.content.tensors[name].sums
                    assert (sums[one.known] == one.sums[one.known]).all()
            assert reads == []
            size = standby.standby_bytes(own, others, folder.shape, weight_format)
            # Together with its own at most all of the model, but for what no two splits share.
            assert size <= 1.02 * len(others) * whole
            sizes.append(size)
        assert any(sizes)


class _Counting:
    """A folder, and what is read of it."""

    def __init__(self, folder: Folder, reads: list[str]) -> None:
        self._folder, self._reads = folder, reads

    def names(self) -> Collection[str]:
        return self._folder.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._folder.shape(name)

    def dtype(self, name: str) -> str:
        return self._folder.dtype(name)

    def item_bits(self, name: str) -> float:
        return self._folder.item_bits(name)

    def file_key(self, name: str) -> str:
        return self._folder.file_key(name)

    def rows_in_file(self, name: str, rows: Range, columns: Range | None = None) -> FileRows | None:
        self._reads.append(name)
        return self._folder.rows_in_file(name, rows, columns)

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        self._reads.append(name)
        return self._folder.read(name, rows, columns)


def test_on_disk_the_cache_has_it(model: Path, tmp_path: Path) -> None:
    with Folder.open(model) as folder:
        cache = PanelCache(tmp_path / "panels")
        own, others = programs(folder, (1, 1, 1), 1, 1)
        held = standby.Standby()
        standby.hold_ready(
            standby.batches(own, others, folder.shape, "q4"), folder, "q4", held,
            wanted=lambda: True, cache=cache, on_disk=True, model="m",
        )  # fmt: skip
        assert not held.batches and sum(one.num_bytes for one in cache.entries()) > 0
        weights = load_weights(own, folder, "q4", cache=cache, least_cached=0)
        plain = load_weights(others[0], folder, "q4")
        again = load_weights(others[0], folder, "q4", cache=cache, kept=weights, least_cached=0)
        assert again.fresh == ()
        for name, matrix in plain.matrices.items():
            assert (again.matrices[name].panels == matrix.panels).all(), name


def test_it_ends_where_nobody_wants_it_any_more(model: Path) -> None:
    with Folder.open(model) as folder:
        own, others = programs(folder, (1, 1, 1), 1, 1)
        held, looks = standby.Standby(), iter([True] * 5 + [False] * 10**6)
        with pytest.raises(standby.Interrupted):
            standby.hold_ready(
                standby.batches(own, others, folder.shape, "q4", 1000), folder, "q4", held,
                wanted=lambda: next(looks),
            )  # fmt: skip


def test_what_it_costs_and_buys_is_told() -> None:
    summary = StandbySummary(where="disk", num_bytes=(10**9, 2 * 10**9), seconds=3.21, over=True)
    assert told(summary) == (
        "standby weights: 3.00 GB in the cache on disk, 2.00 GB at most on a node; if one is lost, "
        "the others need not load for some 3.2 s"
    )
    assert "not all is ready: node 1: no" in told(replace(summary, reasons=("node 1: no",)))


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="choose memory or disk"):
        replace(THREE, standby="tape")
    with pytest.raises(ValueError, match="--no-cache"):
        replace(THREE, standby="disk", cache=False)
    with pytest.raises(ValueError, match="2 spare nodes, but 1 hosts"):
        EngineOptions(
            hosts=("a:1",), secret=b"x" * 32, spare=2, spare_hosts=("b:1",), shares=(Fraction(1),)
        )
