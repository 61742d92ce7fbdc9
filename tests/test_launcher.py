"""Nodes as processes, workers and threads: that they start, and that they end in every case."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bandweave.engine.handle import LaunchError, NodeHandle
from bandweave.engine.launcher import HostLauncher, LocalLauncher, ProcessHandle, ThreadLauncher
from bandweave.engine.worker import Worker, run_worker
from bandweave.mesh.address import bind, format_address
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.handshake import HandshakeError
from bandweave.mesh.secret import make_secret
from tests.helpers import node_stubs

SECRET = make_secret()
STUBS = "tests.helpers.node_stubs"
ROOT = Path(__file__).parent.parent


def local(**options: Any) -> LocalLauncher:
    return LocalLauncher(2, serve=f"{STUBS}:serve", **options)


def gone(pid: int) -> bool:
    """Whether no process, not even a zombie, has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def all_gone(pids: list[int], seconds: float = 2.0) -> bool:
    """Whether the processes, children of others, end within ``seconds``; zombies that their
    adopter has yet to collect count as gone."""

    def ended(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return gone(pid)

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(ended(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def ask(handle: NodeHandle, **message: Any) -> dict[str, Any]:
    handle.channel.send(message)
    return handle.channel.receive(10)


def pids_of(handles: list[NodeHandle]) -> list[int]:
    return [ask(handle, type="describe")["pid"] for handle in handles]


def check_mesh(handles: list[NodeHandle]) -> None:
    """All nodes reach each other at the addresses of their handles."""
    for handle in handles:
        handle.channel.send({"type": "mesh", "addresses": [h.address for h in handles]})
    for handle in handles:
        message = handle.channel.receive(10)
        others = [other.node for other in handles if other is not handle]
        assert message == {"type": "met", "heard": {str(node): node for node in others}}


# Local processes


def test_local_nodes_start_meet_and_end() -> None:
    with local() as launcher:
        handles = launcher.start(3)
        pids = pids_of(handles)
        assert [handle.name for handle in handles] == [
            f"node {node} (pid {pid})" for node, pid in enumerate(pids)
        ]
        described = ask(handles[2], type="describe")
        assert handles[2].address is not None
        assert described["address"] == list(handles[2].address)
        assert (described["node"], described["threads"]) == (2, 2)
        assert described["session"] == launcher.session
        check_mesh(handles)
        assert all(handle.alive() and handle.exit_reason() is None for handle in handles)
        with pytest.raises(ValueError, match="run already"):
            launcher.start(1)
        started = time.monotonic()
        launcher.stop()
        assert time.monotonic() - started < 2
        launcher.stop()
    assert all(gone(pid) for pid in pids)
    assert all(handle.exit_reason() == "ended" for handle in handles)


def test_a_launcher_starts_again_after_stop() -> None:
    with local() as launcher:
        first = pids_of(launcher.start(1)), launcher.session
        launcher.stop()
        second = pids_of(launcher.start(1)), launcher.session
    assert first[0] != second[0] and first[1] != second[1]
    assert gone(first[0][0]) and gone(second[0][0])


def test_the_secret_is_neither_on_the_command_line_nor_in_the_environment() -> None:
    with local() as launcher:
        (pid,) = pids_of(launcher.start(1))
        proc = Path(f"/proc/{pid}")
        if not proc.exists():
            pytest.skip("no /proc")
        for secret in (launcher.secret, launcher.secret.hex().encode()):
            assert secret not in (proc / "cmdline").read_bytes()
            assert secret not in (proc / "environ").read_bytes()


def test_a_killed_node_is_noticed_by_name() -> None:
    with local() as launcher:
        handles = launcher.start(3)
        pids = pids_of(handles)
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(ChannelClosed, match=rf"node 1 \(pid {pids[1]}\) closed"):
            handles[1].channel.receive(2)
        assert handles[1].wait(1) and not handles[1].alive()
        assert "was killed by SIGKILL" in str(handles[1].exit_reason())
        assert ask(handles[0], type="echo", text="still here")["text"] == "still here"
    assert all(gone(pid) for pid in pids)


def test_a_crash_shows_its_last_words() -> None:
    with local() as launcher:
        (handle,) = launcher.start(1)
        handle.channel.send({"type": "crash"})
        with pytest.raises(ChannelClosed):
            handle.channel.receive(5)
        assert handle.wait(2)
        assert isinstance(handle, ProcessHandle)
        assert "was killed by SIGABRT; its last words: " in str(handle.exit_reason())
        assert "about to crash" in handle.output()
        assert any("node_stubs.py" in line for line in handle.output())  # where it crashed


@pytest.mark.parametrize(
    ("error", "args", "reason"),
    [
        ("value", ["17 heads do not fit"], "17 heads do not fit"),
        ("memory", [], "it ran out of memory"),
        ("key", ["x"], "KeyError: 'x'"),
    ],
)
@pytest.mark.parametrize("kind", ["local", "threads"])
@pytest.mark.filterwarnings("error")
def test_errors_are_reported_in_one_sentence(
    kind: str, error: str, args: list[str], reason: str
) -> None:
    with local() if kind == "local" else ThreadLauncher(serve=node_stubs.serve) as launcher:
        (handle,) = launcher.start(1)
        reply = ask(handle, type="raise", error=error, args=args)
        assert (reply["type"], reply["reason"]) == ("failed", reason)
        assert handle.wait(5)
        assert "ended with exit status 1" in str(handle.exit_reason())


def test_a_node_that_fails_at_start_is_named() -> None:
    launcher = LocalLauncher(python=shutil.which("false") or "")
    with pytest.raises(LaunchError, match=r"node 0 \(pid \d+\) did not start: it ended with exit"):
        launcher.start(2)
    launcher = LocalLauncher(serve="tests.no_such_module:serve")
    with pytest.raises(LaunchError, match="did not start: ModuleNotFoundError"):
        launcher.start(2)
    launcher = LocalLauncher(python="/no/such/python")
    with pytest.raises(OSError, match="/no/such/python"):
        launcher.start(1)
    with pytest.raises(ValueError, match="0 nodes"):
        launcher.start(0)


def test_nodes_that_do_not_listen_are_ended_all_the_same() -> None:
    with local() as launcher:
        handles = launcher.start(3)
        pids = pids_of(handles)
        for handle, kind in zip(handles, ("native", "deaf", "linger"), strict=True):
            handle.channel.send({"type": kind})
        for handle in handles[:2]:
            assert handle.channel.receive(5) == {"type": "begun"}
        started = time.monotonic()
        launcher.stop()
        assert time.monotonic() - started < 6
        reasons = [str(handle.exit_reason()) for handle in handles]
    assert "SIGTERM" in reasons[0] and "SIGKILL" in reasons[1] and reasons[2] == "ended"
    assert all(gone(pid) for pid in pids)


# The end of the controller

CONTROLLER = """
import json, sys, threading, time
from bandweave.engine.launcher import LocalLauncher

handles = []

def start():
    handles.extend(launcher.start(3))
    pids = []
    for handle in handles:
        handle.channel.send({"type": "describe"})
        pids.append(handle.channel.receive(10)["pid"])
    for handle, kind in zip(handles, KINDS):
        handle.channel.send({"type": kind, "text": ""})
        handle.channel.receive(10)
    return pids

with LocalLauncher(serve="tests.helpers.node_stubs:serve") as launcher:
    if IN_THREAD:
        found = []
        thread = threading.Thread(target=lambda: found.extend(start()))
        thread.start()
        thread.join()
    else:
        found = start()
    try:
        print(json.dumps(found), flush=True)
        END
    except KeyboardInterrupt:
        for handle in handles:
            handle.channel.send({"type": "echo", "text": ""})
        print([handle.channel.receive(5)["type"] for handle in handles], flush=True)
"""


@contextlib.contextmanager
def controller(kinds: list[str], end: str, *, in_thread: bool = False) -> Iterator[Any]:
    """A controller in a process of its own, and the ids of its nodes' processes."""
    code = CONTROLLER.replace("KINDS", repr(kinds)).replace("END", end)
    code = code.replace("IN_THREAD", str(in_thread))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.stderr.read())
            yield process, json.loads(line)
        finally:
            process.kill()


def child_environment() -> dict[str, str]:
    """The environment with the paths that this process imports from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@pytest.mark.parametrize("in_thread", [False, True])
def test_nodes_end_with_a_killed_controller(in_thread: bool) -> None:
    kinds = ["echo", "native", "deaf"]
    with controller(kinds, "time.sleep(60)", in_thread=in_thread) as (process, pids):
        time.sleep(0.2)
        assert not any(gone(pid) for pid in pids)
        process.kill()
        assert all_gone(pids)


def test_nodes_end_when_the_controller_exits_without_stopping() -> None:
    with controller(["echo"] * 3, "import os; os._exit(0)") as (_, pids):
        assert all_gone(pids)


def test_nodes_end_when_the_controller_fails() -> None:
    with controller(["echo"] * 3, "raise SystemExit('mistake')") as (process, pids):
        assert process.wait(5) == 1
        assert all_gone(pids)


def test_ctrl_c_reaches_the_controller_alone_and_it_ends_the_nodes() -> None:
    with controller(["echo"] * 3, "time.sleep(60)") as (process, pids):
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        assert process.stdout.readline() == "['echo', 'echo', 'echo']\n"
        assert process.wait(5) == 0
        assert all_gone(pids)


# Threads


def test_thread_nodes() -> None:
    with ThreadLauncher(3, serve=node_stubs.serve) as launcher:
        handles = launcher.start(2)
        described = ask(handles[1], type="describe")
        assert described["group"] and described["address"] is None
        assert (described["node"], described["threads"]) == (1, 3)
        assert handles[1].name == "node 1 (thread)" and handles[1].alive()
    assert [handle.exit_reason() for handle in handles] == ["ended", "ended"]
    with ThreadLauncher(serve=f"{STUBS}:serve") as launcher:
        (handle,) = launcher.start(1)
        handle.kill()
        assert handle.wait(2)
    with pytest.raises(LaunchError, match=r"node 0 \(thread\) did not start: Attribute"):
        ThreadLauncher(serve=f"{STUBS}:absent").start(2)


# Workers


class WorkerProcess:
    """A worker in a process of its own, as the command line runs it."""

    def __init__(
        self, listen: str = "127.0.0.1:0", *, prefix: tuple[str, ...] = (), **options: Any
    ) -> None:
        options = {"serve": f"{STUBS}:serve", **options}
        code = (
            "import sys\nfrom bandweave.engine.worker import run_worker\n"
            f"run_worker({listen!r}, {SECRET!r}, **{options!r})\n"
        )
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code],
            cwd=ROOT,
            env=child_environment(),
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self.lines: list[str] = []
        self.address = self.read(r"listening on (\S+)")

    def read(self, pattern: str) -> str:
        """Reads the worker's output up to a line that fits, and what its group holds."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found[found.re.groups]
        raise AssertionError("".join(self.lines))

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stderr is not None
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def hosts(*workers: WorkerProcess, **options: Any) -> HostLauncher:
    return HostLauncher([worker.address for worker in workers], SECRET, **options)


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


@pytest.mark.parametrize("kind", ["echo", "native", "deaf"])
def test_a_session_ends_when_its_controller_is_gone(kind: str) -> None:
    with WorkerProcess() as worker:
        launcher = hosts(worker)
        (handle,) = launcher.start(1)
        (pid,) = pids_of([handle])
        ask(handle, type=kind, text="")
        handle.close()  # without a word
        with hosts(worker) as again:  # and the next one need not wait for that to be noticed
            again.start(1)
        worker.read("session ended")
        assert gone(pid)
        launcher.stop()


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


# Another network


def run_ip(*arguments: str, check: bool = True) -> bool:
    result = subprocess.run(["ip", *arguments], capture_output=True)
    if check and result.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {result.stderr.decode().strip()}")
    return result.returncode == 0


@pytest.fixture
def namespace() -> Iterator[tuple[str, str, str]]:
    """A network namespace joined to this one by a cable: its name, and the addresses here and
    there."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the ip command")
    tag = f"bw{os.getpid() % 100_000}"
    network = f"10.213.{os.getpid() % 250}"
    try:
        run_ip("netns", "add", tag)
        run_ip("link", "add", f"{tag}a", "type", "veth", "peer", "name", f"{tag}b", "netns", tag)
        run_ip("addr", "add", f"{network}.1/30", "dev", f"{tag}a")
        run_ip("link", "set", f"{tag}a", "up")
        run_ip("-n", tag, "addr", "add", f"{network}.2/30", "dev", f"{tag}b")
        run_ip("-n", tag, "link", "set", f"{tag}b", "up")
        yield tag, f"{network}.1", f"{network}.2"
    finally:
        run_ip("link", "del", f"{tag}a", check=False)
        run_ip("netns", "del", tag, check=False)


def test_workers_on_two_networks(namespace: tuple[str, str, str]) -> None:
    name, here, there = namespace
    prefix = ("ip", "netns", "exec", name)
    with WorkerProcess(f"{here}:0") as one, WorkerProcess("0.0.0.0:0", prefix=prefix) as two:
        port = two.address.rpartition(":")[2]
        addresses = [one.address, f"{there}:{port}"]
        with HostLauncher(addresses, SECRET) as launcher:
            handles = launcher.start(2)
            check_mesh(handles)
            described = ask(handles[1], type="describe")
            assert described["address"] == [there, int(port)]
            run_ip("-n", name, "link", "set", f"{name}b", "down")  # the cable is pulled
            started = time.monotonic()
            with pytest.raises(OSError, match=r"node 1 \(10"):
                handles[1].channel.receive(1)
            assert ask(handles[0], type="echo", text="here")["text"] == "here"
            run_ip("-n", name, "link", "set", f"{name}b", "up")
            assert time.monotonic() - started < 5
