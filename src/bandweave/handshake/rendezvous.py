"""Rendezvous: the full mesh of data sockets between the nodes of a session.

Every node connects to those with lower ids and is connected to by those with higher ones. Knows
nothing of what travels over the sockets afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import Hello
from bandweave.mesh.address import Address, format_address, is_link_local, parse_address
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError

_LOOK_SECONDS = 0.2  # between two looks at whether anybody wants the nodes to meet

__all__ = ["Address", "Door", "connect_mesh", "format_address", "parse_address"]


class Door(Protocol):
    """Where the connections of nodes with higher ids come in: a ``Listener`` of the node's own, or
    the ``Arrivals`` that a worker hands over."""

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> socket.socket:
        """The connection from ``node``; see ``Listener.get_mesh``."""
        ...

    def open(self) -> None:
        """Nodes are expected to come, for the first time or again."""
        ...

    def finish(self) -> None:
        """All nodes have met: nobody else is expected."""
        ...


def connect_mesh(
    node: int,
    addresses: Mapping[int, Address],
    door: Door,
    secret: bytes,
    session: str,
    timeout: float,
    *,
    generation: int = 1,
    patience: float | None = None,
    names: Mapping[int, str] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[int, socket.socket]:
    """The sockets of ``node`` to every other node, by node id, in blocking mode, TCP_NODELAY set.

    ``addresses`` are those of all nodes by their ids, ``names`` what errors call them; a
    connection of another ``generation`` of the session is not theirs. A node with a lower id must
    be reached within ``timeout`` seconds; one with a higher id, which may have to find its model
    first, is waited for ``patience`` seconds (None: ``timeout``), infinitely long where whoever
    started the nodes ends them when one fails, or until ``interrupted``, which is asked now and
    then, says that nobody wants them to meet any more. ``HandshakeError`` names the nodes and
    addresses that could not reach each other, or the node whose secret or version does not fit.
    All sockets are closed then.
    """
    if node not in addresses:
        raise ValueError(f"node {node} is none of the {len(addresses)} nodes of the session")
    if names is None:
        names = {n: f"node {n} ({format_address(a)})" for n, a in addresses.items()}
    own = Hello(purpose="mesh", node=node, session=session)
    here = {"type": "here", "generation": generation}
    with contextlib.ExitStack() as opened:
        sockets: dict[int, socket.socket] = {}
        for other in sorted(addresses):
            if other < node:
                sock = _reach(other, addresses, names, secret, own, here, timeout)
            elif other > node:
                seconds = timeout if patience is None else patience
                sock = _await(door, other, own, here, names, seconds, interrupted)
            else:
                continue
            opened.callback(sock.close)
            sockets[other] = sock
        opened.pop_all()
        return sockets


def _reach(
    other: int,
    addresses: Mapping[int, Address],
    names: Mapping[int, str],
    secret: bytes,
    own: Hello,
    here: dict[str, Any],
    timeout: float,
) -> socket.socket:
    address = format_address(addresses[other])
    name = names[other] if address in names[other] else f"{names[other]} at {address}"
    try:
        sock, _, _ = connect(
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
        channel.send(here)
        return channel.detach()
    except OSError as error:
        raise HandshakeError(f"{names[own.node]} lost {name} at once: {error}") from error
    finally:
        channel.close()


def _await(
    door: Door,
    other: int,
    own: Hello,
    here: dict[str, Any],
    names: Mapping[int, str],
    seconds: float,
    interrupted: Callable[[], bool],
) -> socket.socket:
    """The connection of a node that knows that it was welcomed. One that missed the welcome comes
    again, and its first connection ends; so does one that was left from an earlier generation."""
    deadline = time.monotonic() + seconds

    def patience() -> float:
        if interrupted():
            raise HandshakeError(f"{names[own.node]} waits for {names[other]} no longer")
        return min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))

    while True:
        try:
            sock = door.get_mesh(own.session, other, patience())
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            raise HandshakeError(
                f"{names[other]} did not connect to {names[own.node]} within {seconds:.3g} s"
            ) from None
        channel = Channel(sock, names[other])
        try:
            said = _first_words(channel, patience, deadline)
            if said == here:
                return channel.detach()
            if said.get("type") != "here":
                raise HandshakeError(f"{names[other]} does not keep to the protocol")
        except ChannelClosed:
            continue
        except (ChannelError, TimeoutError) as error:
            raise HandshakeError(f"{names[own.node]}: {error}") from error
        finally:
            channel.close()


def _first_words(
    channel: Channel, patience: Callable[[], float], deadline: float
) -> dict[str, Any]:
    while True:
        try:
            return channel.receive(patience())
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise
