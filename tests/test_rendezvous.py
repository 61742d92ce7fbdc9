"""The rendezvous: how the nodes of a session meet, and what is said where two cannot."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.listener import Listener
from bandweave.handshake.rendezvous import MeshSocket, connect_mesh
from bandweave.mesh.address import bind, format_address
from tests.helpers.connections import LOCAL, SECRET, hello


def meet(count: int, host: str = "127.0.0.1") -> list[dict[int, MeshSocket]]:
    """Connects ``count`` nodes, each in a thread of its own."""
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener((host, 0), SECRET, session="s", node=node))
            for node in range(count)
        ]
        addresses = {n: (host, listener.address[1]) for n, listener in enumerate(listeners)}
        results: list[dict[int, MeshSocket]] = [{} for _ in range(count)]

        def join(node: int) -> None:
            results[node] = connect_mesh(node, addresses, listeners[node], SECRET, "s", 5)

        threads = [threading.Thread(target=join, args=(node,)) for node in range(count)]
        for thread in reversed(threads):
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize(("count", "host"), [(1, "127.0.0.1"), (5, "127.0.0.1"), (3, "localhost")])
def test_full_mesh(count: int, host: str) -> None:
    check_mesh(meet(count, host))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_full_mesh_over_ipv6() -> None:
    try:
        bind(("::1", 0)).close()
    except ValueError:
        pytest.skip("no IPv6 loopback")
    check_mesh(meet(3, "::1"))


def check_mesh(results: list[dict[int, MeshSocket]]) -> None:
    for node, sockets in enumerate(results):
        assert sorted(sockets) == [other for other in range(len(results)) if other != node]
        for other, (sock, _) in sockets.items():
            sock.sendall(bytes([node, other]))
    for node, sockets in enumerate(results):
        for other, (sock, _) in sockets.items():
            with sock:
                assert sock.recv(2, socket.MSG_WAITALL) == bytes([other, node])


def test_an_unreachable_node_is_named_in_time() -> None:
    with bind(LOCAL) as sock:
        closed = sock.getsockname()
    with bind(LOCAL) as mute, Listener(LOCAL, SECRET, session="s", node=1) as listener:
        for address, cause in ((closed, "refused"), (mute.getsockname(), "it says nothing")):
            name = f"node 1 .* could not reach node 0 \\({format_address(address)}\\) within"
            started = time.monotonic()
            with pytest.raises(HandshakeError, match=f"{name} 0.4 s: .*{cause}"):
                connect_mesh(1, {0: address, 1: listener.address}, listener, SECRET, "s", 0.4)
            assert time.monotonic() - started < 2


def test_a_node_that_does_not_come_is_named_in_time() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:
        addresses = {0: listener.address, 1: ("10.0.0.9", 9000)}
        with pytest.raises(HandshakeError, match=r"node 1 \(10.0.0.9:9000\) did not .*0.1 s"):
            connect_mesh(0, addresses, listener, SECRET, "s", 0.1)
        with pytest.raises(ValueError, match="node 2 is none of the 2 nodes"):
            connect_mesh(2, addresses, listener, SECRET, "s", 0.1)


def test_an_unknown_host_is_named_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(HandshakeError, match="nowhere.invalid:9000 .*nowhere.invalid"):
        connect(("nowhere.invalid", 9000), SECRET, hello(), timeout=1)
    assert time.monotonic() - started < 3
