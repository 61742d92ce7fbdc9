"""Hosts whose workers and nodes die, stop, are cut off and come back in the midst of answers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cluster.cluster import Cluster
from bandweave.cluster.unavailable import Unavailable
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.nodes.process import SERVE
from bandweave.run_options import RunOptions
from tests.helpers.connections import SECRET
from tests.helpers.lasting import GREEDY, Ask, Streams, asks, undisturbed, wait_until
from tests.helpers.networks import End, filtered_hosts
from tests.helpers.workers import WorkerProcess

RUN = RunOptions(context=512, streams=3)
ALONE = EngineOptions(threads=1, run=RUN)
DEMO = str(demo_folder())
KINDS = asks(grammars=False)
LONG = [Ask([Request(tokens=(5, 6, 7), params=replace(GREEDY, max_tokens=400))], digest=True)]


def expected() -> list[list[tuple[object, ...]]]:
    return undisturbed(DEMO, ALONE)[: len(KINDS)]


@contextlib.contextmanager
def started(*workers: WorkerProcess, **changes: float) -> Iterator[Cluster]:
    options = replace(
        ALONE,
        shares=(Fraction(1),) * len(workers),
        hosts=tuple(worker.address for worker in workers),
        secret=SECRET,
        **changes,
    )
    with (
        Folder.open(DEMO, weights=False) as folder,
        Cluster.start(folder, options) as cluster,
    ):
        yield cluster


def worker(listen: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()) -> WorkerProcess:
    return WorkerProcess(listen, prefix=prefix, serve=SERVE, threads=1)


def node_of(one: WorkerProcess) -> int:
    """The process of its node."""
    children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text()
    return int(children.split()[0])


def test_a_machine_dies_and_comes_back() -> None:
    with worker() as first, worker() as second, started(first, second) as cluster:
        streams = Streams(cluster, KINDS)
        streams.wait_for(150)
        node = node_of(second)
        second.process.kill()
        os.kill(node, signal.SIGKILL)
        assert streams.hearts() == expected()
        assert cluster.recoveries()[0].node == f"node 1 ({second.address})"
        assert len(cluster.nodes) == 1
        assert [one.state for one in cluster.health().nodes] == ["serving", "missing"]
        streams = Streams(cluster, KINDS)
        with worker(second.address):
            assert wait_until(lambda: len(cluster.nodes) == 2)
            assert streams.hearts() == expected()
            assert Streams(cluster, KINDS).hearts() == expected()
    assert cluster.recoveries()[-1].kind == "joined"


def test_a_process_dies_and_its_worker_starts_another() -> None:
    with worker() as first, worker() as second, started(first, second) as cluster:
        streams = Streams(cluster, KINDS)
        streams.wait_for(100)
        os.kill(node_of(first), signal.SIGKILL)  # node 0
        assert streams.hearts() == expected()
        assert wait_until(lambda: len(cluster.nodes) == 2)


def test_without_a_machine_those_who_ask_wait_and_then_hear_why() -> None:
    first = worker()
    with started(first, patience=1.5) as cluster:
        before = Streams(cluster, LONG).hearts()
        streams = Streams(cluster, LONG)
        streams.wait_for(50)
        os.kill(node_of(first), signal.SIGSTOP)
        first.process.kill()
        assert streams.told[0].over.wait(20)
        failure = streams.told[0].failure
        assert isinstance(failure, Unavailable) and 1 <= failure.retry < 60
        with pytest.raises(Unavailable):
            Streams(cluster, LONG)
        outage = cluster.outage
        assert outage is not None and outage.over_patience and first.address in outage.reason
        first.__exit__()
        with worker(first.address):
            assert wait_until(lambda: cluster.outage is None)
            assert Streams(cluster, LONG).hearts() == before


@pytest.fixture
def cable() -> Iterator[tuple[End, End]]:
    with filtered_hosts() as ends:
        yield ends


@pytest.mark.parametrize("ways", ["both", pytest.param("one", marks=pytest.mark.late)])
def test_a_machine_that_is_cut_off_is_left_behind_and_taken_in_again(
    cable: tuple[End, End], ways: str
) -> None:
    def cut() -> None:
        here, there = cable
        with (
            worker(f"{here.address}:0", here.prefix) as first,
            worker(f"{there.address}:0", there.prefix) as second,
            started(first, second) as cluster,
        ):
            streams = Streams(cluster, KINDS)
            streams.wait_for(100)
            silent = [here, there] if ways == "both" else [here]
            for end in silent:
                chain = "{ type filter hook input priority 0; policy drop; }"
                end.run("nft", f"add chain inet cable in {chain}")
                end.run("nft", "add rule inet cable in iif lo accept")
            assert streams.hearts() == expected()
            assert len(cluster.nodes) == 1
            assert 4 < cluster.recoveries()[0].noticed_s < 8
            for end in silent:
                end.run("nft", "delete chain inet cable in")
            assert wait_until(lambda: len(cluster.nodes) == 2, 40)
            assert Streams(cluster, KINDS).hearts() == expected()

    cable[0].inside(cut)


@pytest.mark.timeout(120)
def test_those_that_are_left_are_planned_in_other_stages() -> None:
    asked: list[EngineOptions] = []

    def choose(options: EngineOptions) -> EngineOptions:
        asked.append(options)
        count = len(options.shares)
        return replace(options, stages=count, shares=tuple(map(Fraction, range(1, count + 1))))

    kinds = asks(grammars=False, embeds=False)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker()) for _ in range(3)]
        hosts = tuple(one.address for one in workers)
        options = replace(
            ALONE, shares=(Fraction(1),) * 3, hosts=hosts, secret=SECRET, fit=True,
            standby="memory",
        )  # fmt: skip
        folder = stack.enter_context(Folder.open(DEMO, weights=False))
        cluster = stack.enter_context(Cluster.start(folder, options, choose=choose))
        # What they hold ready is what they would need in those stages.
        assert wait_until(lambda: cluster.standby is not None and cluster.standby.over)
        assert {(len(one.hosts), one.stages) for one in asked} == {(2, 1)}
        streams = Streams(cluster, kinds)
        streams.wait_for(100)
        os.kill(node_of(workers[1]), signal.SIGKILL)
        assert streams.hearts() == undisturbed(DEMO, ALONE, embeds=False)[: len(kinds)]
        assert cluster.recoveries()[0].kind == "failed"
        assert wait_until(lambda: cluster.options.stages == len(cluster.nodes) >= 2)
