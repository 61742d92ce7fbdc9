"""Rendezvous: the full mesh of data sockets between the nodes of a session.

Every node connects to those with lower ids and is connected to by those with higher ones. Knows
nothing of what travels over the sockets.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

from bandweave.mesh.address import Address, format_address, parse_address
from bandweave.mesh.handshake import HandshakeError, connect
from bandweave.mesh.hello import Hello
from bandweave.mesh.listener import Listener

__all__ = ["Address", "connect_mesh", "format_address", "parse_address"]


def connect_mesh(
    node: int,
    addresses: Sequence[Address],
    listener: Listener,
    secret: bytes,
    session: str,
    timeout: float,
) -> dict[int, socket.socket]:
    """The sockets of ``node`` to every other node, by node id, in blocking mode, TCP_NODELAY set.

    ``addresses`` are those of all nodes in order of their ids. Takes at most about ``timeout``
    seconds; ``HandshakeError`` names the node and address that could not be reached, that did not
    come, or whose secret or version does not fit. All sockets are closed then.
    """
    if not 0 <= node < len(addresses):
        raise ValueError(f"node {node} is none of the {len(addresses)} nodes of the session")
    deadline = time.monotonic() + timeout
    own = Hello(purpose="mesh", node=node, session=session)
    with contextlib.ExitStack() as opened:
        sockets: dict[int, socket.socket] = {}
        for other in range(node):
            sockets[other], _ = connect(
                addresses[other],
                secret,
                own,
                name=_name(other, addresses),
                expect_node=other,
                timeout=max(0.0, deadline - time.monotonic()),
            )
            opened.callback(sockets[other].close)
        for other in range(node + 1, len(addresses)):
            try:
                left = max(0.0, deadline - time.monotonic())
                sockets[other] = listener.get_mesh(session, other, left)
            except TimeoutError:
                raise HandshakeError(
                    f"{_name(other, addresses)} did not connect to node {node} "
                    f"({format_address(addresses[node])}) within {timeout:.3g} s"
                ) from None
            opened.callback(sockets[other].close)
        opened.pop_all()
        return sockets


def _name(node: int, addresses: Sequence[Address]) -> str:
    return f"node {node} ({format_address(addresses[node])})"
