"""Rendezvous: the full mesh of data sockets between the nodes of a session.

Every node connects to those with lower ids and is connected to by those with higher ones. Knows
nothing of what travels over the sockets afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import socket as Socket
from typing import Any, NamedTuple, Protocol

from bandweave.handshake.connection import Arrived
from bandweave.handshake.encryption import AUTO, NEVER
from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import Hello
from bandweave.mesh.address import Address, format_address, is_link_local
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError, ChannelTampered
from bandweave.mesh.sealing import Keys

_LOOK_SECONDS = 0.2  # between two looks at whether anybody wants the nodes to meet

HERE = "here"  # of the keys for the first words between two nodes


class MeshSocket(NamedTuple):
    """A connection between two nodes, in blocking mode; ``keys`` are None where it is plain."""

    socket: Socket
    keys: Keys | None


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """How nodes meet, as their controller told each of them. ``generation``: connections of others
    are not theirs. ``encryption``: of their links (``handshake.encryption``). ``key`` is the
    controller's for this session: who does not have it from there, over a control channel, has no
    keys for a link, whatever it knows else."""

    generation: int = 1
    encryption: str = AUTO
    key: bytes = b""

    def here(self) -> dict[str, Any]:
        """What a connector says first."""
        return {"type": "here", "generation": self.generation}

    def may_be_plain(self, *, local: bool) -> bool:
        """Whether a link may be, which stays on this machine (``local``) or does not."""
        return self.encryption == NEVER or (self.encryption == AUTO and local)

    def bind(self, keys: Keys | None) -> Keys | None:
        """A link's keys, of those of its handshake."""
        return None if keys is None else keys.derive("mesh", self.key)


class Door(Protocol):
    """Where the connections of nodes with higher ids come in: a ``Listener`` of the node's own, or
    the ``Arrivals`` that a worker hands over."""

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> Arrived:
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
    meeting: Meeting | None = None,
    patience: float | None = None,
    names: Mapping[int, str] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[int, MeshSocket]:
    """The sockets of ``node`` to every other node, by node id, in blocking mode, TCP_NODELAY set.

    ``addresses`` are those of all nodes by their ids, ``names`` what errors call them. A node with
    a lower id must be reached within ``timeout`` seconds; one with a higher id, which may have to
    find its model first, is waited for ``patience`` seconds (None: ``timeout``), infinitely long
    where whoever started the nodes ends them when one fails, or until ``interrupted``, which is
    asked now and then, says that nobody wants them to meet any more. ``HandshakeError`` names the
    nodes and addresses that could not reach each other, or the node whose secret or version does
    not fit. All sockets are closed then.
    """
    if node not in addresses:
        raise ValueError(f"node {node} is none of the {len(addresses)} nodes of the session")
    if names is None:
        names = {n: f"node {n} ({format_address(a)})" for n, a in addresses.items()}
    own = Hello(purpose="mesh", node=node, session=session)
    meeting = meeting or Meeting()
    with contextlib.ExitStack() as opened:
        sockets: dict[int, MeshSocket] = {}
        for other in sorted(addresses):
            if other < node:
                link = _reach(other, addresses, names, secret, own, meeting, timeout)
            elif other > node:
                seconds = timeout if patience is None else patience
                link = _await(door, other, own, meeting, names, seconds, interrupted)
            else:
                continue
            opened.callback(link.socket.close)
            sockets[other] = link
        opened.pop_all()
        return sockets


def _reach(
    other: int,
    addresses: Mapping[int, Address],
    names: Mapping[int, str],
    secret: bytes,
    own: Hello,
    meeting: Meeting,
    timeout: float,
) -> MeshSocket:
    address = format_address(addresses[other])
    name = names[other] if address in names[other] else f"{names[other]} at {address}"
    try:
        sock, _, keys = connect(
            addresses[other],
            secret,
            own,
            name=name,
            expect_node=other,
            any_interface=True,
            timeout=timeout,
            encryption=meeting.encryption,
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
    bound = meeting.bind(keys)
    channel = _channel(sock, name, bound)
    try:
        channel.send(meeting.here())
        return MeshSocket(channel.detach(), bound)
    except OSError as error:
        raise HandshakeError(f"{names[own.node]} lost {name} at once: {error}") from error
    finally:
        channel.close()


def _channel(sock: Socket, name: str, keys: Keys | None) -> Channel:
    return Channel(sock, name, keys=None if keys is None else keys.derive(HERE))


def _await(
    door: Door,
    other: int,
    own: Hello,
    meeting: Meeting,
    names: Mapping[int, str],
    seconds: float,
    interrupted: Callable[[], bool],
) -> MeshSocket:
    """The connection of a node that knows that it was welcomed. One that missed the welcome comes
    again, and its first connection ends; so does one that was left from an earlier generation."""
    deadline = time.monotonic() + seconds

    def patience() -> float:
        if interrupted():
            raise HandshakeError(f"{names[own.node]} waits for {names[other]} no longer")
        return min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))

    while True:
        try:
            sock, keys, local = door.get_mesh(own.session, other, patience())
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            raise HandshakeError(
                f"{names[other]} did not connect to {names[own.node]} within {seconds:.3g} s"
            ) from None
        if keys is None and not meeting.may_be_plain(local=local):
            sock.close()
            raise HandshakeError(
                f"{names[other]} came to {names[own.node]} without encryption, which their "
                "controller asked for"
            )
        bound = meeting.bind(keys)
        channel = _channel(sock, names[other], bound)
        try:
            said = _first_words(channel, patience, deadline)
            if said == meeting.here():
                return MeshSocket(channel.detach(), bound)
            if said.get("type") != "here":
                raise HandshakeError(f"{names[other]} does not keep to the protocol")
        except ChannelClosed:
            continue
        except ChannelTampered:
            raise HandshakeError(
                f"{names[other]} has no link to {names[own.node]} in this session: it does not "
                "have the controller's key, or what it said was tampered with"
            ) from None
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
