"""The door of a cluster's head, those that come to it, and who may use whom."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from bandweave.handshake.handshake import connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.membership import processes, records
from bandweave.membership.announcer import Announcer, announced
from bandweave.membership.attendance import HeadError, ask_status, attend
from bandweave.membership.caller import pauses
from bandweave.membership.door import Door
from bandweave.membership.launcher import LeftOut, MemberLauncher, Placed
from bandweave.membership.messages import Machine
from bandweave.mesh import routes
from bandweave.mesh.address import bind, format_address, parse_address
from bandweave.mesh.channel import Channel
from bandweave.mesh.interfaces import own_hosts
from bandweave.mesh.routes import Route, best_routes, foreign, measure_routes
from bandweave.nodes.host_launcher import HostError, HostLauncher
from bandweave.nodes.worker import Worker
from tests.helpers.connections import SECRET
from tests.helpers.workers import STUBS

_OTHER = b"bandweave-another-secret-of-enough-bytes"


@contextlib.contextmanager
def member(head: str, log: list[str] | None = None, **options: object) -> Iterator[Announcer]:
    """A worker of this process that has joined, and serves until the end."""
    said = [] if log is None else log
    with Worker("127.0.0.1:0", SECRET, log=said.append, serve=f"{STUBS}:serve") as worker:
        announcer = Announcer(worker, head, SECRET, log=said.append, **options)  # type: ignore[arg-type]
        worker.loyalty = announcer.admit
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(ConnectionError):
                    worker.serve_one()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        announcer.start()
        try:
            yield announcer
        finally:
            over.set()
            announcer.close()


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(("127.0.0.1", 0), SECRET) as opened:
        yield opened


def test_a_member_comes_and_goes(door: Door) -> None:
    attendance = attend(door.where, SECRET, "a test")
    with contextlib.closing(attendance):
        assert attendance.machines == () and attendance.cluster == door.cluster
        with member(door.where) as announcer:
            assert announcer.wait(10.0) == ""
            (machine,) = door.wait((), 10.0)
            assert machine == attendance.wait((), 10.0)[0]
            assert machine.addresses == (format_address(parse_address(machine.addresses[0])),)
            status = ask_status(door.where, SECRET)
            assert [one.machine for one in status.members] == [machine]
            assert [one.name for one in status.controllers] == ["a test"]
        assert door.wait((machine,), 10.0) == ()
        assert attendance.wait((machine,), 10.0) == ()
    assert "left" in ask_status(door.where, SECRET).gone[0]


def test_a_controller_tells_what_it_does(door: Door) -> None:
    attendance = attend(door.where, SECRET, "a test")
    with contextlib.closing(attendance):
        attendance.tell(lambda: '{"model": "m"}')
        deadline = time.monotonic() + 10
        while ask_status(door.where, SECRET).controllers[0].report != '{"model": "m"}':
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_head_that_is_gone_is_dialled_again() -> None:
    log: list[str] = []
    door = Door(("127.0.0.1", 0), SECRET)
    address = door.address
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: door.close())
        announcer = stack.enter_context(member(door.where, log))
        assert announcer.wait(10.0) == ""
        first = door.cluster
        attendance = stack.enter_context(contextlib.closing(attend(door.where, SECRET, "t")))
        (machine,) = attendance.wait((), 5.0)
        door.close()
        assert attendance.wait((machine,), 0.5) == (machine,)  # who was there is there still
        door = Door(address, SECRET)
        assert [one.worker for one in door.wait((), 15.0)] == [machine.worker]
        assert door.cluster != first
    assert sum("out of reach" in line for line in log) <= 2  # not one for every attempt


def test_workers_serve_their_own_head_alone(door: Door) -> None:
    with Door(("127.0.0.1", 0), SECRET) as other, member(door.where) as announcer:
        assert announcer.wait(10.0) == ""
        (machine,) = door.wait((), 5.0)
        placed = Placed(machine=machine, address=machine.places[0])
        with pytest.raises(HostError, match="belongs to the cluster of the head at .*--cluster"):
            HostLauncher([placed.address], SECRET).start(1)
        with pytest.raises(HostError, match="and to no other; let it leave"):
            MemberLauncher(other, [placed]).start(1)
        with MemberLauncher(door, [placed]) as launcher:
            (handle,) = launcher.start(1)
            assert launcher.candidates() == []
            assert handle.alive() and handle.addresses == machine.places
            launcher.dismiss(handle)
            assert [one.node for one in launcher.candidates()] == [0]


def test_newcomers_are_candidates_and_those_left_out_once_one_is_missing(door: Door) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            known = door.machines
            stack.enter_context(member(door.where))
            assert len(door.wait(known, 10.0)) == len(known) + 1
        first, second, third = door.machines
        placed = Placed(machine=first, address=first.places[0])
        left_out = LeftOut(machine=second, reason="it is slow")
        launcher = stack.enter_context(MemberLauncher(door, [placed], left_out=[left_out]))
        assert launcher.why_left_out(second) == "it is slow" and not launcher.why_left_out(third)
        (handle,) = launcher.start(1)
        (newcomer,) = launcher.candidates()
        assert newcomer.node == 1 and launcher.machines[1] == third
        assert launcher.candidates() == [newcomer]
        assert launcher.admit(newcomer).node == 1
        launcher.dismiss(handle)
        names = {launcher.machines[one.node].worker for one in launcher.candidates()}
        assert names == {first.worker}  # two nodes run, or can: as many as were chosen
        # Who stands in goes once as many others are there as were chosen.
        launcher.dismiss(launcher._handles[0])
        found = {launcher.machines[one.node].worker: one.node for one in launcher.candidates()}
        assert found.keys() == {first.worker, second.worker, third.worker}
        numbers = [found[one.worker] for one in (first, second, third)]
        assert launcher.superfluous(numbers) == [found[second.worker]]
        assert list(launcher.superfluous([found[second.worker]])) == []


def test_another_worker_at_the_address_is_not_taken_for_the_member(door: Door) -> None:
    with member(door.where) as announcer, Worker("127.0.0.1:0", SECRET, log=print) as stranger:
        assert announcer.wait(10.0) == ""
        placed = Placed(machine=door.wait((), 5.0)[0], address=stranger.address)
        with pytest.raises(HostError, match="answered by another worker than the one that joined"):
            MemberLauncher(door, [placed]).start(1)


def test_who_does_not_belong_is_told_so(door: Door) -> None:
    with pytest.raises(HeadError, match="secrets differ"):
        attend(door.where, _OTHER, "t")
    with pytest.raises(HeadError, match="is `bandweave up` running there"):
        ask_status("127.0.0.1:1", SECRET, 0.3)
    with pytest.raises(HostError, match="it is the head of a cluster, and no worker"):
        HostLauncher([door.address], SECRET).start(1)
    with Worker("127.0.0.1:0", SECRET, log=lambda line: None) as worker, pytest.raises(
        HeadError, match="it is a worker, and no head"
    ):  # fmt: skip
        attend(worker.address, SECRET, "t")
    with Worker("127.0.0.1:0", SECRET, log=lambda line: None) as worker, pytest.raises(
        ValueError, match="--join 0.0.0.0:1 stands for all addresses"
    ):  # fmt: skip
        Announcer(worker, "0.0.0.0:1", SECRET)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "roster"},
        {"type": "announce", "machine": {}},
        {"type": "announce"},
        {"type": "report", "text": "{}"},
        {"type": "attend", "name": 3, "pid": 1},
        {"type": [1]},
        {},
    ],
)
def test_nonsense_at_the_door_ends_its_own_connection_alone(door: Door, message: dict) -> None:
    own = Hello(purpose="cluster", node=NO_NODE, session="")
    channel = Channel(connect(door.address, SECRET, own).socket, "the head")
    with contextlib.closing(channel):
        channel.send(message)
        with pytest.raises(OSError):
            while True:
                channel.receive(5.0)
    assert ask_status(door.where, SECRET).members == ()


def test_a_machine_says_only_what_makes_sense() -> None:
    fields = dict(
        worker="0123456789abcdef", host="h", host_id="", addresses=("10.0.0.1:1",), processor="p",
        cpus=1, threads=0, memory_bytes=0, total_bytes=0, version="1",
    )  # fmt: skip
    assert Machine(**fields).places == (("10.0.0.1", 1),)  # type: ignore[arg-type]
    many = ("10.0.0.1:1",) * 33
    for name, value in (("addresses", ()), ("addresses", ("here",)), ("host", "a\nb"),
                        ("worker", "x"), ("cpus", 0), ("addresses", many)):  # fmt: skip
        with pytest.raises(ValueError):
            Machine(**{**fields, name: value})  # type: ignore[arg-type]


# Addresses and routes


def test_a_worker_tells_the_addresses_at_which_it_listens() -> None:
    own = [one for one in own_hosts() if ":" not in one]
    assert announced(("10.0.0.2", 9), None) == ("10.0.0.2:9",)
    assert announced(("0.0.0.0", 9), ("gate", 80)) == ("gate:80",)
    # None that leads to this machine alone, which others would take for themselves.
    found = announced(("0.0.0.0", 9), None)
    assert found == tuple(f"{one}:9" for one in own) or found == ("127.0.0.1:9",)


def test_an_address_of_ones_own_leads_to_no_other_machine() -> None:
    bridge, cable = ("172.17.0.1", 9), ("10.0.0.2", 9)
    assert foreign([bridge, cable], own=["172.17.0.1"]) == [cable]
    assert foreign([bridge], own=["172.17.0.1"]) == [bridge]  # that machine is this one
    assert foreign([bridge, ("127.0.0.1", 9)], own=["172.17.0.1"]) == [bridge]


def test_the_soonest_address_that_answers_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = measure_routes([("127.0.0.1", 1), ("127.0.0.1", port)], seconds=0.5)
        assert [one.address for one in found] == [f"127.0.0.1:{port}"]
        assert 0 < found[0].seconds < 0.5
    times = {("a", 1): 0.004, ("b", 1): 0.0002, ("c", 1): 0.001}

    def took(addresses: dict, seconds: float) -> dict[int, float]:
        return {n: times[one] for n, one in addresses.items() if one in times}

    monkeypatch.setattr(routes, "_connect", took)
    addresses = [("a", 1), ("gone", 1), ("b", 1), ("c", 1)]
    assert [one.address for one in best_routes(addresses)] == ["b:1", "c:1", "a:1"]
    assert best_routes([("a", 1)]) == [Route(address="a:1", seconds=0.0)]


def test_pauses_grow_to_half_a_minute() -> None:
    assert list(islice(pauses(lambda: 0.0), 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert all(low * 0.75 <= one <= low for low, one in zip([0.5, 1, 2], pauses(), strict=False))


# What was started in the background


def test_no_other_process_is_ended_in_its_place() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = processes.started_at(process.pid)
        assert processes.runs(process.pid, started)
        # Its number, of a process that started at another time.
        assert processes.end(process.pid, started + "0")
        assert process.poll() is None
        done = threading.Thread(target=process.wait)
        done.start()
        assert processes.end(process.pid, started)
        done.join(5)
        assert not processes.runs(process.pid, started) and processes.end(process.pid, started)


def test_records_are_private_and_forgotten_with_their_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record = records.Record(
            role="worker", address="", head="h:1", token_file="t", log="", background=True,
            scratch="", processes=(records.running(process.pid),),
        )  # fmt: skip
        records.write_record(tmp_path, record)
        assert os.stat(tmp_path / "worker.json").st_mode & 0o077 == 0
        assert records.find_record(tmp_path, "worker") == record
        done = threading.Thread(target=process.wait)
        done.start()
        assert records.end_record(tmp_path, "worker") == []
        done.join(5)
    assert records.find_record(tmp_path, "worker") is None and not list(tmp_path.iterdir())
    (tmp_path / "head.json").write_text('{"role": "head"}')
    assert records.find_record(tmp_path, "head") is None


def test_a_silent_connection_that_closes_is_no_stranger_worth_a_line() -> None:
    log: list[str] = []
    with Worker("127.0.0.1:0", SECRET, log=log.append) as worker:
        for said in (b"", b"x"):
            with socket.create_connection(worker.address) as sock:
                sock.sendall(said)
        deadline = time.monotonic() + 5
        with contextlib.suppress(OSError):
            HostLauncher([worker.address], b"0" * 16, connect_timeout=1.0).start(1)
        while not log and time.monotonic() < deadline:
            time.sleep(0.05)
    assert log and not any("closed the connection" in line for line in log)
