"""Cables that are silent for a while, or for good, between two hosts with a model on them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.mesh import tcp_options
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.process import SERVE
from tests.helpers.connections import SECRET
from tests.helpers.networks import End, filtered_hosts
from tests.helpers.workers import STUBS, WorkerProcess, all_gone, hosts, pids_of


@pytest.fixture
def cable() -> Iterator[tuple[End, End]]:
    with filtered_hosts() as ends:
        yield ends


@contextlib.contextmanager
def silent(cable: tuple[End, End]) -> Iterator[None]:
    """What either end sends is lost on the way, and neither is told."""
    for end in cable:
        end.run(
            "nft", "add chain inet cable in { type filter hook input priority 0; policy drop; }"
        )
        end.run("nft", "add rule inet cable in iif lo accept")
    yield
    for end in cable:
        end.run("nft", "delete chain inet cable in")


@contextlib.contextmanager
def two_workers(cable: tuple[End, End], serve: str = SERVE) -> Iterator[list[WorkerProcess]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                WorkerProcess(f"{end.address}:0", prefix=end.prefix, serve=serve, threads=1)
            )
            for end in cable
        ]


def start(workers: list[WorkerProcess]) -> tuple[Folder, Engine]:
    addresses = tuple(worker.address for worker in workers)
    options = EngineOptions(shares=(Fraction(1),) * 2, hosts=addresses, secret=SECRET)
    folder = Folder.open(demo_folder())
    return folder, Engine.start(folder, options)


def answer(engine: Engine, tokens: int, on_token: Callable[[], None] = lambda: None) -> list[int]:
    request = Request(tokens=(5, 6, 7), params=SamplingParams(temperature=0.0, max_tokens=tokens))
    (result,) = engine.generate([request], on_token=lambda index, token: on_token())
    return list(result.tokens)


def test_an_idle_session_outlives_a_cable_that_is_silent_for_a_while(
    cable: tuple[End, End],
) -> None:
    """Longer than anybody waits for work, and as long as it takes to walk to the cable."""

    def chat() -> None:
        with two_workers(cable) as workers:
            folder, engine = start(workers)
            with folder, engine:
                before = answer(engine, 20)
                with silent(cable):
                    time.sleep(17)
                assert answer(engine, 20) == before

    cable[0].inside(chat)


def has_retry_bound() -> bool:
    """Whether this system can be told how long it may wait before it sends lost data again."""
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, tcp_options._LINUX_RTO_MAX_MS, 1000)
        return True
    return False


def test_a_cable_that_is_silent_in_mid_answer_for_less_than_the_bound_costs_no_more(
    cable: tuple[End, End],
) -> None:
    if not has_retry_bound():
        pytest.skip("this system waits ever longer before it sends lost data again")

    def interrupted() -> None:
        with two_workers(cable) as workers:
            folder, engine = start(workers)
            with folder, engine:
                expected = answer(engine, 600)
                count = 0

                def cut() -> None:
                    nonlocal count
                    count += 1
                    if count == 200:
                        with silent(cable):
                            time.sleep(3.7)

                assert answer(engine, 600, cut) == expected

    cable[0].inside(interrupted)


@pytest.mark.parametrize("when", ["working", "idle"])
def test_a_cable_that_is_silent_for_good_ends_work_soon(cable: tuple[End, End], when: str) -> None:
    def cut_off() -> tuple[str, float]:
        with two_workers(cable) as workers:
            folder, engine = start(workers)
            with folder, engine, contextlib.ExitStack() as stack:
                count = 0
                began = 0.0

                def cut() -> None:
                    nonlocal count, began
                    count += 1
                    if count == 50:
                        stack.enter_context(silent(cable))
                        began = time.monotonic()

                if when == "idle":
                    count = 49
                    cut()
                with pytest.raises(StepError) as caught:
                    answer(engine, 4000, cut)
                return str(caught.value), time.monotonic() - began

    sentence, seconds = cable[0].inside(cut_off)
    assert "made no progress for" in sentence
    assert seconds < 12


def test_a_machine_that_vanishes_while_nodes_start_is_named(cable: tuple[End, End]) -> None:
    """Long before anybody would wait so long for a node that only takes its time."""

    def vanish() -> None:
        with two_workers(cable, f"{STUBS}:serve") as workers:
            launcher = HostLauncher([worker.address for worker in workers], SECRET)
            with contextlib.closing(launcher.start(2)[1].channel):
                handles = launcher._handles
                began = time.monotonic()
                with silent(cable):
                    with pytest.raises(TimeoutError, match=r"node 1 .* has not answered for 15 s"):
                        handles[1].receive(100.0)
                    assert 14 < time.monotonic() - began < 30
            launcher.stop()

    cable[0].inside(vanish)


IMPATIENT = f"""
from bandweave.nodes import worker
from bandweave.nodes import worker_session
worker_session._LOOK_SECONDS, worker_session._PATIENCE = 0.5, 8.0
worker.run_worker("0.0.0.0:0", {SECRET!r}, serve="{STUBS}:serve")
"""


@pytest.mark.parametrize("kind", ["idle", "talking"])
def test_a_worker_whose_controllers_machine_has_vanished_is_free_again(
    cable: tuple[End, End], kind: str
) -> None:
    """With a shorter patience than workers have. A stopped controller is not one that vanished."""
    here, there = cable
    with WorkerProcess(prefix=there.prefix, code=IMPATIENT) as worker:
        worker.address = f"{there.address}:{worker.address.rpartition(':')[2]}"
        launcher = here.inside(lambda: hosts(worker))
        (handle,) = here.inside(lambda: launcher.start(1))
        (pid,) = pids_of([handle])
        if kind == "talking":  # and never heard, as by a paused command
            handle.channel.send({"type": "talk", "count": 1_000_000})
        time.sleep(10)
        assert not all_gone([pid], 0.2)
        with silent(cable):
            assert all_gone([pid], 25)
            worker.read("has not answered for 8 s")
            worker.read("session ended")
        launcher.stop()
        with here.inside(lambda: hosts(worker)) as again:
            here.inside(lambda: again.start(1))
