"""Joining the mesh: from addresses, or threads of one process, to an exchange with all its links.

Knows sockets and shared memory; knows no programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bandweave import _native
from bandweave.executors.executor import StepError
from bandweave.handshake.rendezvous import connect_mesh
from bandweave.mesh.address import Address
from bandweave.mesh.shared import share_memory
from bandweave.nodes.context import NodeContext, ThreadGroup
from bandweave.planning.profile.emulation import EmulatedLink

_DIAL_SECONDS = 30.0  # to reach one other node
_THREAD_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A node's links to all others; ``sharing``: the nodes that share memory with it."""

    exchange: _native.Exchange
    sharing: frozenset[int] = frozenset()


def join_mesh(
    context: NodeContext,
    names: Sequence[str],
    addresses: Sequence[Address],
    *,
    stall_seconds: float,
    spin: bool,
    shared: bool = True,
    emulate: EmulatedLink | None = None,
) -> _native.Exchange | None:
    """The exchange of this node with all others, None for a node that is alone. Nodes of one host
    share memory, unless ``shared`` is off on any of them. ``emulate``: all of them are processes
    of one host, but talk as over that link.

    The others may take their time: a node that still looks for its model is waited for as long as
    the controller keeps the session. ``HandshakeError`` where one cannot be reached, ``ValueError``
    for names and addresses that make no sense.
    """
    mesh = meet(
        context,
        names,
        addresses,
        stall_seconds=stall_seconds,
        spin=spin,
        shared=shared,
        emulate=emulate,
    )
    return None if mesh is None else mesh.exchange


def meet(
    context: NodeContext,
    names: Sequence[str],
    addresses: Sequence[Address],
    *,
    stall_seconds: float,
    spin: bool,
    shared: bool = True,
    emulate: EmulatedLink | None = None,
) -> Mesh | None:
    """As ``join_mesh``, with what became of the links."""
    if not 0 <= context.node < len(names):
        raise ValueError(f"node {context.node} is none of the {len(names)} nodes that were named")
    door = context.listener
    if door is not None and len(addresses) != len(names):
        raise ValueError(
            f"{len(names)} nodes were named, but {len(addresses)} addresses were given"
        )
    if len(names) == 1:
        if door is not None:
            door.finish()
        return None
    exchange = _native.Exchange(context.node, list(names), 1, stall_seconds, spin)
    if door is None:
        _meet(context.in_process_group, context.node, exchange)
        return Mesh(exchange=exchange)
    sockets = connect_mesh(
        context.node,
        addresses,
        door,
        context.secret,
        context.session,
        _DIAL_SECONDS,
        patience=math.inf,
        names=names,
    )
    memory = share_memory(
        context.node,
        sockets,
        _native.shared_transport_bytes(),
        None,
        willing=shared and emulate is None,
    )
    door.finish()  # every peer has said something that only a welcomed one says
    for peer, sock in sockets.items():
        if peer in memory:
            exchange.add_shared(peer, sock.detach(), memory[peer], context.node < peer)
        elif emulate is not None:
            exchange.add_emulated(peer, sock.detach(), emulate.latency_seconds, emulate.bytes_per_s)
        else:
            exchange.add_tcp(peer, sock.detach())
    return Mesh(exchange=exchange, sharing=frozenset(memory))


def _meet(group: ThreadGroup, node: int, exchange: _native.Exchange) -> None:
    """Links the exchanges of nodes that are threads of one process; the last to come does it."""
    with group.changed:
        group.items[node] = exchange
        if len(group.items) == group.num_nodes:
            for high in range(group.num_nodes):
                for low in range(high):
                    _native.join_locally(group.items[low], group.items[high])
            group.items["linked"] = True
            group.changed.notify_all()
        if not group.changed.wait_for(lambda: "linked" in group.items, _THREAD_SECONDS):
            raise StepError(f"the other nodes did not come within {_THREAD_SECONDS:g} s")
