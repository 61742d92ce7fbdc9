"""Nodes die, hang and come back in the midst of answers of every kind, and no byte tells."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from fractions import Fraction

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.run_options import RunOptions
from tests.helpers import lasting
from tests.helpers.lasting import GREEDY, Ask, Streams, asks, harm, pids, undisturbed, wait_until

RUN = RunOptions(context=512, streams=3)  # fewer pages than all want at a time
THREE = EngineOptions(shares=(Fraction(1),) * 3, threads=1, run=RUN)
DEMO = str(demo_folder())


@pytest.mark.parametrize(
    ("node", "moment"), [(0, 1), (2, 300), (0, 700)], ids=lambda value: str(value)
)
def test_every_kind_of_answer_survives_a_kill(node: int, moment: int) -> None:
    expected = undisturbed(DEMO, THREE)
    with Folder.open(DEMO) as folder, lasting.cluster(folder, THREE) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(moment)
        killed = harm(launcher, node)
        assert streams.hearts() == expected
        assert streams.next_after(killed) < 10
        first = cluster.recoveries()[0]
        assert first.kind == "failed" and first.node.startswith(f"node {node} (pid")
        assert "was killed by SIGKILL" in first.cause
        assert first.noticed_s < 0.3 and first.over and first.prefilled_s > 0
        assert (first.nodes_before, first.nodes_after) == (3, 2)
        assert wait_until(lambda: len(cluster.nodes) == 3)  # a new process has taken its place
        assert [one.kind for one in cluster.recoveries()] == ["failed", "joined"]
        assert Streams(cluster, asks()).hearts() == expected
        assert all(one.state == "serving" for one in cluster.health().nodes)


def test_a_node_that_hangs_is_left_behind() -> None:
    expected = undisturbed(DEMO, THREE)
    with Folder.open(DEMO) as folder, lasting.cluster(folder, THREE) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(200)
        stopped = pids(launcher)[1]
        moment = harm(launcher, 1, signal.SIGSTOP)
        assert streams.hearts() == expected
        assert 4 < streams.next_after(moment + 0.5) < 12
        assert 4 < cluster.recoveries()[0].noticed_s < 7
        assert not os.path.exists(f"/proc/{stopped}")


def test_a_kill_beside_a_node_that_hangs_costs_no_more_than_the_hang() -> None:
    """Whoever has sent its part of a sum sees the end of the one, and does not wait for the
    other; and the nodes that are left are asked all at once."""
    options = replace(THREE, shares=(Fraction(1),) * 4)
    expected = undisturbed(DEMO, options)
    with Folder.open(DEMO) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(200)
        harm(launcher, 1, signal.SIGSTOP)
        harm(launcher, 2)
        assert streams.hearts() == expected
        first = cluster.recoveries()[0]
        assert first.kind == "failed" and first.nodes_after == 2
        assert first.noticed_s + first.planned_s < 8  # 5 are the bound


def test_failure_upon_failure_down_to_one_node_and_back() -> None:
    """The second comes in the midst of the first one's recovery; node 0 goes, too."""
    expected = undisturbed(DEMO, THREE)
    with Folder.open(DEMO) as folder, lasting.cluster(folder, THREE) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(150)
        harm(launcher, 2)
        assert wait_until(lambda: bool(cluster.recoveries()))
        harm(launcher, 0)
        assert streams.hearts() == expected
        assert wait_until(lambda: len(cluster.nodes) == 3)
        harm(launcher, 1)
        harm(launcher, 0)
        harm(launcher, 2)  # nobody is left: new processes load everything
        assert Streams(cluster, asks()).hearts() == expected


@pytest.mark.parametrize("how", ["ngram", "draft", "mtp"])
def test_speculation_goes_on(how: str) -> None:
    model = str(demo_folder("demo-moe")) if how == "mtp" else DEMO
    run = replace(RUN, speculate=how, draft_tokens=4)
    options = replace(
        THREE, shares=(Fraction(1),) * 2, run=run, draft=DEMO if how == "draft" else ""
    )
    kinds = asks(embeds=how != "mtp")
    expected = undisturbed(model, THREE, embeds=how != "mtp")
    with Folder.open(model) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        streams = Streams(cluster, kinds)
        streams.wait_for(300)
        harm(launcher, 0)
        assert streams.hearts() == expected


@pytest.mark.parametrize(("node", "moment"), [(2, 250), (0, 500)], ids=lambda value: str(value))
def test_steps_of_all_stages_are_lost_and_computed_again(node: int, moment: int) -> None:
    expected = undisturbed(DEMO, THREE)
    options = replace(THREE, stages=3, run=replace(RUN, streams=9))
    with Folder.open(DEMO) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(moment)
        harm(launcher, node)
        assert streams.hearts() == expected
        assert wait_until(lambda: len(cluster.nodes) == 3)
        assert Streams(cluster, asks()).hearts() == expected


def test_idle_nodes_that_stop_are_known_before_anybody_asks() -> None:
    options = replace(THREE, shares=(Fraction(1),) * 2)
    ask = [Ask([Request(tokens=(5, 6, 7), params=GREEDY)])]
    with Folder.open(DEMO) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        before = Streams(cluster, ask).hearts()
        harm(launcher, 1, signal.SIGSTOP)
        assert wait_until(
            lambda: [one.state for one in cluster.health().nodes].count("silent") == 1
        )
        streams = Streams(cluster, ask)
        assert streams.hearts(5.0) == before
        assert "has given no sign of life" in cluster.recoveries()[0].cause


def test_a_closed_cluster_leaves_nobody_waiting() -> None:
    options = replace(THREE, shares=(Fraction(1),) * 2)
    with Folder.open(DEMO) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        streams = Streams(cluster, asks())
        streams.wait_for(50)
        harm(launcher, 1)
    assert all(one.over.wait(5) for one in streams.told)
    assert any(isinstance(one.failure, StepError) for one in streams.told)
    with pytest.raises(StepError, match="closed"):
        Streams(cluster, asks())


@pytest.mark.late
def test_a_node_that_becomes_slow_gets_a_smaller_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bandweave.cluster.lookout._BILL_SECONDS", 0.8)
    monkeypatch.setattr("bandweave.cluster.lookout._BALANCE_SECONDS", 3.0)
    options = replace(THREE, shares=(Fraction(1),) * 2, run=replace(RUN, context=1024))
    endless = replace(GREEDY, max_tokens=1000)
    ask = [Ask([Request(tokens=(5, 6, 7 + one), params=endless)]) for one in range(3)]
    over = threading.Event()
    with Folder.open(DEMO) as folder, lasting.cluster(folder, options) as (cluster, launcher):
        expected = Streams(cluster, ask).hearts()
        pid = pids(launcher)[1]

        def slow() -> None:  # it has the processor for a quarter of the time
            while not over.wait(0.004):
                os.kill(pid, signal.SIGSTOP)
                over.wait(0.012)
                os.kill(pid, signal.SIGCONT)

        thread, began = threading.Thread(target=slow), time.monotonic()
        streams = Streams(cluster, ask)
        while time.monotonic() < began + 5:  # for as long as its own speed takes to be known
            if streams.hearts() == expected:
                streams = Streams(cluster, ask)
        thread.start()
        try:
            while not cluster.options.shares[1] < cluster.options.shares[0] * Fraction(3, 4):
                if all(one.over.is_set() for one in streams.told):
                    assert streams.hearts() == expected
                    streams = Streams(cluster, ask)
                time.sleep(0.05)
        finally:
            over.set()
            thread.join()
        assert any(one.kind == "balanced" for one in cluster.recoveries())
        assert streams.hearts() == expected
