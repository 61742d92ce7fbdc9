"""Nodes as processes and threads: that they start, and that they end in every case."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bandweave.mesh.channel import ChannelClosed
from bandweave.nodes.launcher import LaunchError
from bandweave.nodes.local_launcher import LocalLauncher, ProcessHandle
from bandweave.nodes.thread_launcher import ThreadLauncher
from tests.helpers import node_stubs
from tests.helpers.workers import (
    ROOT,
    STUBS,
    all_gone,
    ask,
    check_mesh,
    child_environment,
    gone,
    pids_of,
)


def local(**options: Any) -> LocalLauncher:
    return LocalLauncher(2, serve=f"{STUBS}:serve", **options)


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
from bandweave.nodes.local_launcher import LocalLauncher

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
