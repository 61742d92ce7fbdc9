"""Joining the mesh: from addresses, or threads of one process, to an exchange with all its links.

Knows sockets and shared memory; knows no programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bandweave import _native
from bandweave.executors.executor import StepError
from bandweave.handshake.encryption import NEVER
from bandweave.handshake.rendezvous import Meeting, connect_mesh
from bandweave.mesh.address import Address
from bandweave.mesh.sealing import AES
from bandweave.mesh.shared import share_memory
from bandweave.nodes.context import NodeContext, ThreadGroup
from bandweave.nodes.libcrypto import load_libcrypto
from bandweave.planning.profile.emulation import EmulatedLink

_DIAL_SECONDS = 30.0  # to reach one other node
_THREAD_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A node's links to all others; ``sharing``: the nodes that share memory with it."""

    exchange: _native.Exchange
    sharing: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Members:
    """Who meets, in order of their ranks: the ``nodes`` as they were started, ascending, what
    errors call them, and their addresses, none where they are threads of one process. ``meeting``:
    how; ``cipher``: of links that are encrypted."""

    meeting: Meeting
    nodes: tuple[int, ...]
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    cipher: str = AES

    def rank(self, node: int) -> int:
        """A node's place among them; ``ValueError`` where it has none."""
        if node not in self.nodes:
            raise ValueError(f"node {node} is none of those that were named: {self.nodes}")
        return self.nodes.index(node)


def meet(
    context: NodeContext,
    members: Members,
    *,
    stall_seconds: float,
    spin: bool,
    shared: bool = True,
    emulate: EmulatedLink | None = None,
) -> Mesh | None:
    """This node's links to all others, None where it is alone. Nodes of one host share memory,
    unless ``shared`` is off on any of them. ``emulate``: all of them are processes of one host, but
    talk as over that link.

    The others may take their time: a node that still looks for its model is waited for as long as
    the controller keeps the session. ``HandshakeError`` where one cannot be reached, ``ValueError``
    for names and addresses that make no sense, and where this machine cannot encrypt links that are
    to be, or may not leave those plain that are to be.
    """
    rank, names = members.rank(context.node), members.names
    door = context.listener
    if door is not None and len(members.addresses) != len(names):
        raise ValueError(
            f"{len(names)} nodes were named, but {len(members.addresses)} addresses were given"
        )
    if len(names) == 1:
        if door is not None:
            door.finish()
        return None
    if context.encrypted and members.meeting.encryption == NEVER:
        raise ValueError(
            f"{context.name} takes part in encrypted sessions only (--require-encryption); leave "
            "--no-encrypt out, or start its worker without it"
        )
    generation = members.meeting.generation
    exchange = _native.Exchange(rank, list(names), generation, stall_seconds, spin)
    if door is None:
        _meet(context.in_process_group, members, rank, exchange)
        return Mesh(exchange=exchange)
    door.open()
    links = connect_mesh(
        context.node,
        dict(zip(members.nodes, members.addresses, strict=True)),
        door,
        context.secret,
        context.session,
        _DIAL_SECONDS,
        meeting=members.meeting,
        patience=math.inf,
        names=dict(zip(members.nodes, names, strict=True)),
    )
    memory = share_memory(
        context.node,
        {peer: link.socket for peer, link in links.items()},
        _native.shared_transport_bytes(),
        None,
        willing=shared and emulate is None,
        keys={peer: link.keys and link.keys.derive("memory") for peer, link in links.items()},
    )
    door.finish()  # every peer has said something that only a welcomed one says
    for peer, (sock, keys) in links.items():
        place = members.rank(peer)
        if peer in memory:
            exchange.add_shared(place, sock.detach(), memory[peer], rank < place)
        elif emulate is not None:
            seconds, bytes_per_s = emulate.latency_seconds, emulate.bytes_per_s
            exchange.add_emulated(place, sock.detach(), seconds, bytes_per_s)
        elif keys is not None:
            load_libcrypto()
            own = keys.derive("link")
            exchange.add_sealed(place, sock.detach(), members.cipher, own.send, own.receive)
        else:
            exchange.add_tcp(place, sock.detach())
    return Mesh(exchange=exchange, sharing=frozenset(map(members.rank, memory)))


def _meet(group: ThreadGroup, members: Members, rank: int, exchange: _native.Exchange) -> None:
    """Links the exchanges of nodes that are threads of one process; the last to come does it."""
    count = len(members.nodes)
    with group.changed:
        here = group.items.setdefault(("exchanges", members.meeting.generation), {})
        here[rank] = exchange
        if len(here) == count:
            for high in range(count):
                for low in range(high):
                    _native.join_locally(here[low], here[high])
            here["linked"] = True
            group.changed.notify_all()
        if not group.changed.wait_for(lambda: "linked" in here, _THREAD_SECONDS):
            raise StepError(f"the other nodes did not come within {_THREAD_SECONDS:g} s")
