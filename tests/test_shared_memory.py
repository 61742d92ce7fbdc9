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

from bandweave.mesh import shared
from bandweave.mesh.channel import Channel
from bandweave.mesh.host import host_id, network_id
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
        assert channel.receive(5.0) == {"type": "network", "network": network_id()}
        assert channel.receive(5.0) == {"type": "opened", "shared": False}
        channel.close()
    os.close(descriptor)
    if other != descriptor:
        os.close(other)


@pytest.mark.parametrize("reason", ["another host", "another network", "unwilling", "no memory"])
def test_both_ends_agree_that_they_share_none(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their addresses say: these two are joined over the loopback."""
    left, right = connected()
    mine = threading.local()
    if reason in ("another host", "another network"):
        monkeypatch.setattr(shared, "network_id", lambda: mine.network)
    if reason == "no memory":
        monkeypatch.setattr(shared.ProcMemory, "make", lambda self, token, size: None)
    results: list[dict[int, int] | None] = [None, None]

    def end(node: int, sock: socket.socket) -> None:
        mine.network = "ab"[node] * 32
        willing = reason != "unwilling" or node == 0
        results[node] = share_memory(node, {1 - node: sock}, SIZE, 5.0, willing=willing)

    with left, right:
        threads = [threading.Thread(target=end, args=(n, s)) for n, s in enumerate((left, right))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [{}, {}]
        left.sendall(b"on with the socket")  # nothing of the negotiation is left on it
        assert right.recv(18, socket.MSG_WAITALL) == b"on with the socket"
        assert left.getblocking() and right.getblocking()


@pytest.mark.parametrize("count", [2, 5])
def test_nodes_of_a_larger_mesh_agree_in_whatever_order_they_come(count: int) -> None:
    pairs = {(a, b): connected() for b in range(count) for a in range(b)}
    results: list[dict[int, int]] = [{} for _ in range(count)]

    def end(node: int) -> None:
        sockets = {}
        for (a, b), (low, high) in pairs.items():
            if node in (a, b):
                sockets[b if node == a else a] = low if node == a else high
        results[node] = share_memory(node, sockets, SIZE, 10.0)

    threads = [threading.Thread(target=end, args=(node,)) for node in reversed(range(count))]
    for thread in threads:
        thread.start()
        thread.join(0.05)
    for thread in threads:
        thread.join()
    for node, memory in enumerate(results):
        assert sorted(memory) == [other for other in range(count) if other != node]
        for descriptor in memory.values():
            os.close(descriptor)
    for low, high in pairs.values():
        low.close()
        high.close()


def test_a_peer_that_says_something_else_is_an_error() -> None:
    left, right = connected()
    with left, right:
        channel = Channel(left.dup(), "node 1")
        channel.send({"type": "opened", "shared": True})
        with pytest.raises(OSError, match="node 0 does not keep to the protocol"):
            share_memory(1, {0: right}, SIZE, 5.0)
        channel.close()


def test_hosts_and_networks_have_ids() -> None:
    code = "from bandweave.mesh.host import host_id, network_id; print(host_id(), network_id())"
    here = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert here == [host_id(), network_id()]
    assert len(set(here)) == 2 and all(len(one) == 32 for one in here)


def test_the_same_host_in_another_network_has_another_network_id() -> None:
    code = "from bandweave.mesh.host import host_id, network_id; print(host_id(), network_id())"
    command = ["unshare", "--net", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this system allows no network namespaces")
    host, network = done.stdout.split()
    assert host == host_id() and network != network_id()


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


# --- macOS's way, which Linux has too ---


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> shared.NamedMemory:
    maker = shared.NamedMemory()
    monkeypatch.setattr(shared, "_MAKER", maker)
    return maker


def names() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("bw-")}


def test_named_memory_is_shared_and_its_name_is_gone(named: shared.NamedMemory) -> None:
    before = names()
    left, right = connected()
    with left, right:
        low, high = both(left, right)
    assert os.pwrite(low[1], b"abc", 5) == 3
    assert os.pread(high[0], 10, 0) == b"\0" * 5 + b"abc" + b"\0" * 2
    assert names() == before
    os.close(low[1])
    os.close(high[0])


def test_a_name_is_gone_too_where_the_peer_dies_first(named: shared.NamedMemory) -> None:
    before = names()
    left, right = connected()
    with left:
        channel = Channel(right, "node 0")
        channel.send({"type": "network", "network": network_id()})
        thread = threading.Thread(target=lambda: (channel.receive(5.0), channel.close()))
        thread.start()
        with pytest.raises(OSError):
            share_memory(0, {1: left}, SIZE, 5.0)
        thread.join()
    assert names() == before


@pytest.mark.parametrize("lie", ["token", "small", "text", "none", "nothing"])
def test_only_named_memory_of_the_right_name_and_size_is_opened(
    lie: str, named: shared.NamedMemory
) -> None:
    token = "0123456789abcdef" * 2
    descriptor = named.make(token, SIZE // 2 if lie == "small" else SIZE)
    assert descriptor is not None
    offer: dict[str, object] = {"type": "memory", "descriptor": 3, "token": token}
    try:
        assert named.make(token, SIZE) is None  # the name is taken
        if lie != "small":
            opened = named.open(offer, SIZE)
            assert opened is not None
            os.close(opened)
        lies = {"token": {"token": "f" * 32}, "text": {"token": "../../etc"}, "small": {}}
        told = {"type": "memory"} if lie == "nothing" else offer | lies.get(lie, {"descriptor": -1})
        assert named.open(told, SIZE) is None
    finally:
        os.close(descriptor)
        named.settle(token)


def test_names_are_short_enough_for_macos(named: shared.NamedMemory) -> None:
    assert len(named._name("f" * 32)) <= 31 - 1


def test_systems_choose_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(shared._choose_maker(), shared.ProcMemory)
    monkeypatch.delattr(os, "memfd_create")
    assert isinstance(shared._choose_maker(), shared.NoMemory)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(shared._choose_maker(), shared.NamedMemory)
