"""Joining the mesh: from addresses, or threads of one process, to an exchange with all its links.

Knows sockets and shared memory; knows no programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bandweave import _native
from bandweave.executors.executor import StepError
from bandweave.handshake.encryption import NEVER
from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.rendezvous import Meeting, connect_mesh
from bandweave.mesh.address import Address, parse_address
from bandweave.mesh.routes import Route, best_routes
from bandweave.mesh.sealing import AES
from bandweave.mesh.shared import share_memory
from bandweave.messages import RouteTaken
from bandweave.nodes.context import NodeContext, ThreadGroup
from bandweave.nodes.libcrypto import load_libcrypto
from bandweave.planning.profile.emulation import EmulatedLink

_DIAL_SECONDS = 30.0  # to reach one other node that has just been started
_AGAIN = 0.8  # of the bound for stalls: to reach one that has met others before
_THREAD_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A node's links to all others; ``sharing``: the nodes that share memory with it; ``routes``:
    how soon each way to a node answered that has several."""

    exchange: _native.Exchange
    sharing: frozenset[int] = frozenset()
    routes: tuple[RouteTaken, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Members:
    """Who meets, in order of their ranks: the ``nodes`` as they are numbered, what errors call
    them, and their addresses, none where they are threads of one process. ``alternatives``: all
    addresses of each, none where nobody has several; ``meeting``: how; ``cipher``: of links that
    are encrypted."""

    meeting: Meeting
    nodes: tuple[int, ...]
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    alternatives: tuple[tuple[Address, ...], ...] = ()
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
    the controller keeps the session and says nothing else. Those that have met before must be
    reached sooner. ``HandshakeError`` where one cannot be reached, ``ValueError`` for names and
    addresses that make no sense, and where this machine cannot encrypt links that are to be, or may
    not leave those plain that are to be.
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
    addresses, routes = _choose_routes(context, members)
    links = connect_mesh(
        context.node,
        addresses,
        door,
        context.secret,
        context.session,
        _DIAL_SECONDS if generation == 1 else _AGAIN * stall_seconds,
        meeting=members.meeting,
        patience=math.inf,
        names=dict(zip(members.nodes, names, strict=True)),
        interrupted=context.channel.poll,
    )
    again = generation > 1
    try:
        memory = share_memory(
            context.node,
            {peer: link.socket for peer, link in links.items()},
            _native.shared_transport_bytes(),
            2 * stall_seconds if again else None,  # others may still look for their models
            willing=shared and emulate is None,
            keys={peer: link.keys and link.keys.derive("memory") for peer, link in links.items()},
        )
    except OSError as error:  # one of them died, or is cut off, between two words
        for link in links.values():
            link.socket.close()
        raise HandshakeError(f"{names[rank]} could not meet the others: {error}") from error
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
    context.routes.update(routes)  # they lead there, and need not be measured again
    return Mesh(
        exchange=exchange,
        sharing=frozenset(map(members.rank, memory)),
        routes=tuple(
            RouteTaken(rank=members.rank(node), routes=found) for node, found in routes.items()
        ),
    )


def _choose_routes(
    context: NodeContext, members: Members
) -> tuple[dict[int, Address], dict[int, tuple[Route, ...]]]:
    """Where every node is to be reached: those that this one dials at the soonest of their
    addresses; and what was measured of those that have several. That holds for the session, as
    long as the others could be met so."""
    addresses = dict(zip(members.nodes, members.addresses, strict=True))
    routes: dict[int, tuple[Route, ...]] = {}
    ways = dict(zip(members.nodes, members.alternatives, strict=False))
    for node in (one for one in members.nodes if one < context.node):
        several = ways.get(node, ())
        if len(several) > 1:
            known = context.routes.pop(node, None)
            if known is None or not _among(known, several):
                known = tuple(best_routes(several))
            if known:
                addresses[node], routes[node] = parse_address(known[0].address), known
    return addresses, routes


def _among(routes: tuple[Route, ...], addresses: tuple[Address, ...]) -> bool:
    """Whether what was measured is of these addresses, and not of a machine that was there
    before."""
    return bool(routes) and parse_address(routes[0].address) in addresses


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
