"""Memory that two processes of one host share: found by its maker's word, gone with its users."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bandweave.mesh.channel import Channel
from bandweave.mesh.shared import share_memory

SIZE = 1 << 16
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux only")


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    return left, right


def both(left: socket.socket, right: socket.socket) -> list[dict[int, int]]:
    results: list[dict[int, int]] = [{}, {}]

    def end(node: int, sock: socket.socket) -> None:
        results[node] = share_memory(node, {1 - node: sock}, SIZE, 5.0)

    threads = [threading.Thread(target=end, args=(n, s)) for n, s in enumerate((left, right))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_both_ends_have_the_same_zeroed_memory_that_cannot_shrink() -> None:
    left, right = connected()
    with left, right:
        low, high = both(left, right)
    a, b = mmap.mmap(low[1], SIZE), mmap.mmap(high[0], SIZE)
    assert a[:] == bytes(SIZE)
    a[5:8] = b"abc"
    assert b[5:8] == b"abc"
    with pytest.raises(PermissionError):
        os.ftruncate(high[0], 0)
    a.close()
    b.close()
    for descriptor in (low[1], high[0]):
        assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:bandweave-")
        os.close(descriptor)


OTHER = f"""
import socket, sys
from bandweave.mesh.shared import share_memory
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
memory = share_memory(1, {{0: sock}}, {SIZE}, 5.0)
open(memory[0], "r+b").write(b"hello")
"""


def test_two_processes_meet_in_memory_and_leave_no_file(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = subprocess.Popen([sys.executable, "-c", OTHER, str(port)])
        sock, _ = server.accept()
        with sock:
            memory = share_memory(0, {1: sock}, SIZE, 5.0)
    assert child.wait(timeout=20) == 0
    assert os.pread(memory[1], 5, 0) == b"hello"
    os.close(memory[1])
    if before:
        assert not [name for name in set(os.listdir("/dev/shm")) - before if "bandweave" in name]


@pytest.mark.parametrize("lie", ["token", "another file", "small", "text", "nothing"])
def test_only_memory_of_the_right_name_and_size_is_opened(lie: str, tmp_path: Path) -> None:
    token = "0123456789abcdef" * 2
    size = SIZE // 2 if lie == "small" else SIZE
    name = "bandweave-" + ("f" * 32 if lie == "token" else token)
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    number = other = descriptor
    if lie == "another file":
        other = os.open(tmp_path / f"memfd:{name}", os.O_RDWR | os.O_CREAT)
        os.ftruncate(other, size)
        number = other
    message = {"type": "memory", "process": os.getpid(), "descriptor": number, "token": token}
    if lie == "text":
        message |= {"process": "self", "token": "../../etc"}
    if lie == "nothing":
        message = {"type": "memory"}
    left, right = connected()
    with left, right:
        channel = Channel(left.dup(), "node 1")
        channel.send(message)
        assert share_memory(1, {0: right}, SIZE, 5.0) == {}
        answer, _ = channel.receive(5.0)
        assert answer["shared"] is False
        channel.close()
    os.close(descriptor)
    if other != descriptor:
        os.close(other)


def test_an_end_that_dies_in_the_middle_leaves_nothing_open() -> None:
    left, right = connected()
    before = set(os.listdir("/proc/self/fd"))
    with right:
        left.close()
        with pytest.raises(OSError):
            share_memory(0, {1: right}, SIZE, 5.0)
    assert not [
        fd for fd in set(os.listdir("/proc/self/fd")) - before
        if os.path.islink(f"/proc/self/fd/{fd}") and "memfd" in os.readlink(f"/proc/self/fd/{fd}")
    ]  # fmt: skip
