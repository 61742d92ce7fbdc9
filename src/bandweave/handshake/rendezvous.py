"""Rendezvous: the full mesh of data sockets between the nodes of a session.

Every node connects to those with lower ids and is connected to by those with higher ones. Knows
nothing of what travels over the sockets afterwards.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Sequence
from typing import Protocol

from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import Hello
from bandweave.mesh.address import Address, format_address, is_link_local, parse_address
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError

__all__ = ["Address", "Door", "connect_mesh", "format_address", "parse_address"]

_HERE = {"type": "here"}


class Door(Protocol):
    """Where the connections of nodes with higher ids come in: a ``Listener`` of the node's own, or
    the ``Arrivals`` that a worker hands over."""

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> socket.socket:
        """The connection from ``node``; see ``Listener.get_mesh``."""
        ...

    def finish(self) -> None:
        """All nodes have met: nobody else is expected."""
        ...


def connect_mesh(
    node: int,
    addresses: Sequence[Address],
    door: Door,
    secret: bytes,
    session: str,
    timeout: float,
    *,
    patience: float | None = None,
    names: Sequence[str] = (),
) -> dict[int, socket.socket]:
    """The sockets of ``node`` to every other node, by node id, in blocking mode, TCP_NODELAY set.

    ``addresses`` are those of all nodes in order of their ids, ``names`` what errors call them. A
    node with a lower id must be reached within ``timeout`` seconds; one with a higher id, which may
    have to find its model first, is waited for ``patience`` seconds (None: ``timeout``), infinitely
    long where whoever started the nodes ends them when one fails. ``HandshakeError`` names the
    nodes and addresses that could not reach each other, or the node whose secret or version does
    not fit. All sockets are closed then.
    """
    if not 0 <= node < len(addresses):
        raise ValueError(f"node {node} is none of the {len(addresses)} nodes of the session")
    names = names or [f"node {n} ({format_address(a)})" for n, a in enumerate(addresses)]
    own = Hello(purpose="mesh", node=node, session=session)
    with contextlib.ExitStack() as opened:
        sockets: dict[int, socket.socket] = {}
        for other in range(node):
            sock = _reach(other, addresses, names, secret, own, timeout)
            opened.callback(sock.close)
            sockets[other] = sock
        for other in range(node + 1, len(addresses)):
            sock = _await(door, other, own, names, timeout if patience is None else patience)
            opened.callback(sock.close)
            sockets[other] = sock
        opened.pop_all()
        return sockets


def _reach(
    other: int,
    addresses: Sequence[Address],
    names: Sequence[str],
    secret: bytes,
    own: Hello,
    timeout: float,
) -> socket.socket:
    address = format_address(addresses[other])
    name = names[other] if address in names[other] else f"{names[other]} at {address}"
    try:
        sock, _ = connect(
            addresses[other],
            secret,
            own,
            name=name,
            expect_node=other,
            any_interface=True,
            timeout=timeout,
        )
    except Unreachable as error:
        where = f"the machine of node {own.node}"
        advice = (
            f"{address} has to lead there from {where} too, through any firewall between the two"
        )
        if is_link_local(addresses[other][0]):
            advice = (
                f"{address} holds on one cable only, and no interface of {where} leads there; give "
                "an address that holds everywhere"
            )
        raise Unreachable(
            f"{names[own.node]} could not reach {name} within {timeout:.3g} s: {error.cause}; "
            f"{advice}",
            error.cause,
        ) from error
    except HandshakeError as error:
        raise HandshakeError(f"{names[own.node]}: {error}") from error
    channel = Channel(sock, name)
    try:
        channel.send(_HERE)
        return channel.detach()
    except OSError as error:
        raise HandshakeError(f"{names[own.node]} lost {name} at once: {error}") from error
    finally:
        channel.close()


def _await(
    door: Door, other: int, own: Hello, names: Sequence[str], seconds: float
) -> socket.socket:
    """The connection of a node that knows that it was welcomed. One that missed the welcome comes
    again, and its first connection ends."""
    patience = None if math.isinf(seconds) else seconds
    while True:
        try:
            sock = door.get_mesh(own.session, other, patience)
        except TimeoutError:
            raise HandshakeError(
                f"{names[other]} did not connect to {names[own.node]} within {seconds:.3g} s"
            ) from None
        channel = Channel(sock, names[other])
        try:
            if channel.receive(patience) != _HERE:
                raise HandshakeError(f"{names[other]} does not keep to the protocol")
            return channel.detach()
        except ChannelClosed:
            continue
        except (ChannelError, TimeoutError) as error:
            raise HandshakeError(f"{names[own.node]}: {error}") from error
        finally:
            channel.close()
