"""Workers: that they serve one session after the other, whatever becomes of any of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.secret import make_secret
from bandweave.mesh.address import bind, format_address, parse_address
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.mesh.host import host_id
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.launcher import LaunchError
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.nodes.spawn import spawn
from bandweave.nodes.worker import Worker, run_worker
from bandweave.nodes.worker_session import WorkerSession
from tests.helpers.connections import SECRET, ends, hello
from tests.helpers.hanging_file import hanging_file, release_readers
from tests.helpers.workers import (
    CLOSED,
    STUBS,
    WorkerProcess,
    all_gone,
    ask,
    check_mesh,
    free_port,
    gone,
    hosts,
    listening,
    pids_of,
    processor_seconds,
    threads_of,
)


def test_two_sessions_one_after_the_other(tmp_path: Path) -> None:
    options = {"model_roots": [str(tmp_path)], "threads": 3, "cache": "/kept/here"}
    with WorkerProcess(**options) as one, WorkerProcess(advertise="localhost:1") as other:
        all_pids: list[int] = []
        for _ in range(2):
            with hosts(one, other) as launcher:
                handles = launcher.start(2)
                assert handles[0].name == f"node 0 ({one.address})"
                assert handles[1].address == ("localhost", 1)
                described = ask(handles[0], type="describe")
                assert described["roots"] == [str(tmp_path)] and described["threads"] == 3
                assert described["cache"] == "/kept/here"
                assert ask(handles[1], type="describe")["cache"] == ""
                assert described["session"] == launcher.session
                assert format_address(tuple(described["address"])) == one.address
                all_pids += pids_of(handles)
                assert all(handle.alive() for handle in handles)
            assert [handle.alive() for handle in handles] == [False, False]
            assert "ended" in str(handles[0].exit_reason())
        assert len(set(all_pids)) == 4
        one.read("session ended")
        assert one.process.poll() is None
        assert all(gone(pid) for pid in all_pids[:2])


def test_workers_form_a_mesh() -> None:
    with WorkerProcess() as one, WorkerProcess() as two, WorkerProcess() as three:
        launcher = hosts(one, two, three)
        with launcher:
            check_mesh(launcher.start(3))


def test_a_second_controller_hears_that_the_worker_is_busy() -> None:
    with WorkerProcess() as worker:
        with hosts(worker) as first:
            (handle,) = first.start(1)
            started = time.monotonic()
            sentence = rf"node 0 \({worker.address}\) refused: it is busy: it serves the controller"
            with pytest.raises(HandshakeError, match=sentence):
                hosts(worker).start(1)
            assert time.monotonic() - started < 2
            assert ask(handle, type="echo", text="undisturbed")["text"] == "undisturbed"
        with hosts(worker) as second:
            second.start(1)


def test_a_controller_with_another_secret_is_refused() -> None:
    with WorkerProcess() as worker:
        with pytest.raises(HandshakeError, match="the cluster secrets differ"):
            HostLauncher([worker.address], make_secret()).start(1)
        worker.read("secrets differ")
        with hosts(worker) as launcher:
            launcher.start(1)


@pytest.mark.parametrize("kind", ["echo", "native", "deaf", "stop", "hold"])
def test_a_session_ends_when_its_controller_is_gone(kind: str) -> None:
    """Whatever its process is at: others hear that the worker is busy, and then it is free."""
    with WorkerProcess() as worker:
        launcher = hosts(worker)
        (handle,) = launcher.start(1)
        (pid,) = pids_of([handle])
        ask(handle, type=kind, text="")
        started = time.monotonic()
        with pytest.raises(HandshakeError, match="it is busy"):
            hosts(worker).start(1)
        assert time.monotonic() - started < 2
        handle.close()  # without a word
        with hosts(worker) as again:  # and the next one need not wait for that to be noticed
            again.start(1)
        worker.read("session ended")
        assert gone(pid)
        launcher.stop()


def test_a_process_that_the_system_does_not_let_end_holds_no_worker(tmp_path: Path) -> None:
    with hanging_file(tmp_path / "drive") as path, WorkerProcess() as worker:
        pid = 0
        for _ in range(3):
            launcher = hosts(worker)
            (handle,) = launcher.start(1)
            (pid,) = pids_of([handle])
            assert ask(handle, type="read", path=str(path)) == {"type": "begun"}
            time.sleep(0.3)  # until it reads
            handle.close()
            worker.read(f"the system does not let its process {pid} end.*waiting for the next")
            launcher.stop()
        # That many are held, with their memory: more would be asking for trouble.
        with pytest.raises(HandshakeError, match=f"does not let the processes .*{pid}"):
            hosts(worker).start(1)
        release_readers(tmp_path / "drive")
        assert all_gone([pid])
        with hosts(worker, connect_timeout=20) as again:
            again.start(1)


# What the system may refuse


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "temporarily"),
        (MemoryError(), "ran out of memory"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
@pytest.mark.parametrize("where", ["spawn", "thread"])
def test_a_session_that_cannot_start_ends_itself_alone(
    error: Exception, words: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, pids = [error], []

    def fail(*arguments: Any, **options: Any) -> None:
        if left:
            raise left.pop()

    def spawned(*arguments: Any, **options: Any) -> Any:
        if where == "spawn":
            fail()
        process, channel = spawn(*arguments, **options)
        pids.append(process.pid)
        return process, channel

    monkeypatch.setattr("bandweave.nodes.worker.spawn", spawned)
    if where == "thread":
        real = WorkerSession._in_thread
        monkeypatch.setattr(
            WorkerSession, "_in_thread", lambda self, *what: fail() or real(self, *what)
        )
    log: list[str] = []
    with Worker("127.0.0.1:0", SECRET, log=log.append, serve=f"{STUBS}:serve") as worker:
        served = threading.Thread(
            target=lambda: [worker.serve_one() for _ in range(2)], daemon=True
        )
        served.start()
        address = format_address(worker.address)
        with HostLauncher([address], SECRET) as launcher:
            try:
                (handle,) = launcher.start(1)
                heard = handle.channel.receive(5)["reason"]  # it had just begun
            except LaunchError as failure:
                heard = str(failure)
        assert "its worker could not serve it: " in heard and words in heard
        with HostLauncher([address], SECRET) as launcher:
            launcher.start(1)
        served.join(10)
        assert not served.is_alive()
    assert all(gone(pid) for pid in pids)
    assert any("session failed: its worker" in line for line in log)


SHORT_OF_DESCRIPTORS = f"""
import os, resource
from bandweave.nodes.worker import Worker
from bandweave.nodes.log import Log
log = Log("worker")
with Worker("127.0.0.1:0", {SECRET!r}, log=log, serve="{STUBS}:serve") as worker:
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    for room in (3, 4, 5, 6, 7, 64):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, 1024))
        log(f"listening on 127.0.0.1:{{worker.address[1]}}")
        worker.serve_one()
"""


def test_a_worker_short_of_descriptors_says_so_and_serves_when_it_has_some() -> None:
    """With room for the controller's connection, and for part of what a process takes."""
    with WorkerProcess(code=SHORT_OF_DESCRIPTORS) as worker:
        answers = []
        for room in range(6):
            if room:
                worker.read("listening")
            try:
                with hosts(worker) as launcher:
                    launcher.start(1)
                answers.append("served")
            except LaunchError as error:
                answers.append(str(error))
        assert "Too many open files" in answers[0], answers
        assert answers[-1] == "served"
        assert worker.process.wait(10) == 0


# The log


@pytest.mark.parametrize("kind", ["full disk", "no reader", "stopped reader", "closed"])
def test_a_log_that_cannot_be_written_ends_nothing(kind: str) -> None:
    reading, writing = os.pipe()
    if kind == "full disk":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    if kind == "no reader":
        os.close(reading)
    if kind == "stopped reader":
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
    with (
        free_port() as port,
        WorkerProcess(
            f"127.0.0.1:{port}", stderr=writing, prefix=CLOSED if kind == "closed" else ()
        ) as worker,
    ):
        for _ in range(3):
            with pytest.raises(HandshakeError, match="secrets differ"):
                HostLauncher([worker.address], make_secret(), connect_timeout=20).start(1)
            with hosts(worker, connect_timeout=20) as launcher:
                handles = launcher.start(1)
                (pid,) = pids_of(handles)
                assert ask(handles[0], type="raise", error="key", args=["x"])["type"] == "failed"
            assert all_gone([pid])
        assert worker.process.poll() is None
    os.close(writing)
    if kind != "no reader":
        os.close(reading)


# Strangers, and who comes at the wrong time


def test_nodes_of_a_worker_listen_nowhere_and_those_of_a_command_no_longer_than_they_must() -> None:
    with WorkerProcess() as one, WorkerProcess() as two, hosts(one, two) as launcher:
        pids = pids_of(launcher.start(2))
        assert [listening(pid) for pid in (*pids, one.process.pid)] == [0, 0, 1]
    with LocalLauncher(2, serve=f"{STUBS}:serve") as launcher:
        handles = launcher.start(3)
        pids = pids_of(handles)
        assert [listening(pid) for pid in pids] == [1, 1, 1]
        check_mesh(handles)
        assert [listening(pid) for pid in pids] == [0, 0, 0]


def test_strangers_do_not_disturb_a_session() -> None:
    with WorkerProcess() as one, WorkerProcess() as two:
        strangers = [socket.create_connection(parse_address(one.address)) for _ in range(150)]
        with hosts(one, two) as launcher:
            handles = launcher.start(2)
            threads = threads_of(one.process.pid)
            strangers += [socket.create_connection(parse_address(one.address)) for _ in range(150)]
            check_mesh(handles)
            assert ask(handles[0], type="echo", text="here")["text"] == "here"
            with pytest.raises(HandshakeError, match="it is busy"):
                hosts(one).start(1)
            assert threads_of(one.process.pid) <= threads
        with hosts(one) as again:
            again.start(1)
        for stranger in strangers:
            stranger.close()


FLOOD = """
import socket, sys, time
end, held = time.monotonic() + 2, []
while time.monotonic() < end:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", int(sys.argv[1])))
    held.append(sock)
    if len(held) > 500:
        held.pop(0).close()
"""


def test_a_flood_costs_a_session_next_to_nothing() -> None:
    """In processor time of the worker; what the system spends on it is as at a closed port."""
    with WorkerProcess() as one, WorkerProcess() as two, hosts(one, two) as launcher:
        handles = launcher.start(2)
        check_mesh(handles)
        before = processor_seconds(one.process.pid)
        flood = [sys.executable, "-c", FLOOD, str(parse_address(one.address)[1])]
        subprocess.run(flood, check=True)
        assert processor_seconds(one.process.pid) - before < 0.3
        assert ask(handles[0], type="echo", text="here")["text"] == "here"


def as_node(worker: WorkerProcess, node: int, session: str) -> socket.socket:
    own = hello(purpose="mesh", node=node, session=session)
    return connect(parse_address(worker.address), SECRET, own, timeout=5)[0]


def test_a_node_that_missed_its_welcome_comes_again() -> None:
    with WorkerProcess() as worker:
        launcher = HostLauncher([worker.address], SECRET)
        (handle,) = launcher.start(1)
        as_node(worker, 1, launcher.session).close()
        addresses = [handle.address, ("127.0.0.1", 1)]
        handle.channel.send({"type": "mesh", "addresses": addresses})
        time.sleep(0.2)
        with as_node(worker, 1, launcher.session) as sock:
            for unexpected in (0, 5, 9):  # itself, and some that do not exist
                with contextlib.suppress(HandshakeError):
                    as_node(worker, unexpected, launcher.session).close()
            channel = Channel(sock, "node 0")
            channel.send({"type": "here", "generation": 1})
            channel.send({"type": "network", "network": "another"})
            assert channel.receive(5)["descriptor"] == -1
            channel.send({"type": "opened", "shared": False})
            with channel.detach() as raw:
                raw.sendall(bytes([1]))
                met = handle.channel.receive(5)
                assert (met["type"], met["heard"]) == ("met", {"1": 1})
        with pytest.raises(HandshakeError, match="its nodes do not meet now|other session|timed"):
            as_node(worker, 1, "of another session")
        launcher.stop()


def test_nodes_nobody_expects_are_let_go_when_all_have_met() -> None:
    with WorkerProcess() as one, WorkerProcess() as two, hosts(one, two) as launcher:
        handles = launcher.start(2)
        unknown = [as_node(one, node, launcher.session) for node in range(2, 30)]
        check_mesh(handles)
        for sock in unknown:
            with sock:
                assert ends(sock)


def test_a_node_may_take_its_time() -> None:
    """Longer than others would wait for one that cannot be reached: it looks for its model."""
    with WorkerProcess() as one, WorkerProcess() as two, hosts(one, two) as launcher:
        low, high = launcher.start(2)
        addresses = [handle.address for handle in (low, high)]
        low.channel.send({"type": "mesh", "addresses": addresses, "seconds": 0.3})
        time.sleep(1.5)
        assert not low.channel.poll()
        high.channel.send({"type": "mesh", "addresses": addresses, "seconds": 0.3})
        assert [handle.channel.receive(10)["type"] for handle in (low, high)] == ["met"] * 2


def test_one_worker_by_two_names_is_told() -> None:
    with WorkerProcess("0.0.0.0:0") as worker:
        port = worker.address.rpartition(":")[2]
        launcher = HostLauncher([f"127.0.0.1:{port}", f"localhost:{port}"], SECRET)
        with pytest.raises(HandshakeError, match="is the worker that is node 0 already; give"):
            launcher.start(2)


# A controller that is slow, or says strange things


def test_a_paused_controller_gets_every_token_when_it_goes_on() -> None:
    with WorkerProcess() as worker, hosts(worker) as launcher:
        (handle,) = launcher.start(1)
        handle.channel.send({"type": "talk", "count": 20_000})
        time.sleep(2)  # its node has long been waiting for room
        numbers, beats = [], 0
        while (message := handle.channel.receive(10))["type"] != "done":
            if message["type"] == "tokens":
                numbers.append(message["number"])
            else:
                beats += 1
        assert numbers == list(range(20_000))
        assert beats > 0
        assert ask(handle, type="echo", text="on")["text"] == "on"


def test_hosts_tell_who_they_are() -> None:
    with WorkerProcess() as one, WorkerProcess() as two, hosts(one, two) as launcher:
        assert {handle.host_id for handle in launcher.start(2)} == {host_id()}
    with LocalLauncher(serve=f"{STUBS}:serve") as launcher:
        assert launcher.start(1)[0].host_id == host_id() != ""


def test_a_crashed_session_is_reported_and_the_worker_goes_on() -> None:
    with WorkerProcess() as worker:
        with hosts(worker) as launcher:
            (handle,) = launcher.start(1)
            (pid,) = pids_of([handle])
            os.kill(pid, signal.SIGKILL)
            message = handle.channel.receive(5)
            assert message["type"] == "failed"
            assert message["reason"].startswith("its process was killed by SIGKILL")
            assert handle.wait(2)
        with hosts(worker) as launcher:
            (handle,) = launcher.start(1)
            reply = ask(handle, type="raise", error="value", args=["17 heads"])
            assert reply == {"type": "failed", "reason": "17 heads", "mistake": True}
        worker.read("session failed: its process ended with exit status 1")


def test_ctrl_c_ends_the_worker_and_its_session() -> None:
    with WorkerProcess() as worker:
        launcher = hosts(worker)
        (handle,) = launcher.start(1)
        (pid,) = pids_of([handle])
        os.killpg(worker.process.pid, signal.SIGINT)
        assert worker.process.wait(5) == 0
        assert gone(pid)
        with pytest.raises(ChannelClosed, match="node 0"):
            while True:
                handle.channel.receive(2)
        launcher.stop()


def test_a_killed_worker_takes_its_session_along() -> None:
    with WorkerProcess() as worker:
        launcher = hosts(worker)
        pids = pids_of(launcher.start(1))
        worker.process.kill()
        assert all_gone(pids)
        launcher.stop()


@pytest.mark.alone
def test_an_idle_worker_ends_on_ctrl_c_and_once_serves_one_session() -> None:
    with WorkerProcess() as worker:
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(5) == 0
    with WorkerProcess(once=True) as worker:
        with hosts(worker) as launcher:
            launcher.start(1)
        assert worker.process.wait(5) == 0


def test_mistakes_end_in_one_sentence(tmp_path: Path) -> None:
    with bind(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} on 127.0.0.1 is in use.*--listen"):
            run_worker(f"127.0.0.1:{port}", SECRET)
    with pytest.raises(ValueError, match="at least 16"):
        run_worker("127.0.0.1:0", b"short")
    with pytest.raises(ValueError, match="absent: there is no such folder"):
        run_worker("127.0.0.1:0", SECRET, [tmp_path / "absent"])
    with pytest.raises(ValueError, match="no port"):
        Worker("127.0.0.1", SECRET)
    with pytest.raises(ValueError, match="given twice"):
        HostLauncher(["a:1", "a:1"], SECRET)
    with pytest.raises(ValueError, match="127.0.0.1:1 cannot be reached from the other hosts"):
        HostLauncher(["127.0.0.1:1", "studio:1"], SECRET)
    with pytest.raises(ValueError, match="2 nodes, but 1 hosts"):
        HostLauncher(["a:1"], SECRET).start(2)


def test_an_unreachable_host_is_named_and_the_others_are_let_go() -> None:
    with bind(("127.0.0.1", 0)) as sock:
        closed = format_address(sock.getsockname())
    with WorkerProcess() as worker:
        launcher = HostLauncher([worker.address, closed], SECRET, connect_timeout=0.5)
        with pytest.raises(HandshakeError, match=rf"node 1 \({closed}\) could not be reached"):
            launcher.start(2)
        worker.read("session ended")
