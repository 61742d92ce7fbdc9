"""Joining the mesh: from addresses, or threads of one process, to an exchange with all its links.

Knows sockets and shared memory; knows no programs.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave import _native
from bandweave.engine.context import NodeContext, ThreadGroup
from bandweave.engine.executor import StepError
from bandweave.mesh.address import Address
from bandweave.mesh.rendezvous import connect_mesh
from bandweave.mesh.shared import share_memory
from bandweave.planning.emulation import EmulatedLink

_MESH_SECONDS = 30.0


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
    share memory, unless ``shared`` is off on all of them. ``emulate``: all of them are processes
    of one host, but talk as over that link."""
    if len(names) == 1:
        return None
    exchange = _native.Exchange(context.node, list(names), 1, stall_seconds, spin)
    if context.in_process_group is not None:
        _meet(context.in_process_group, context.node, exchange)
        return exchange
    assert context.listener is not None
    sockets = connect_mesh(
        context.node, addresses, context.listener, context.secret, context.session, _MESH_SECONDS
    )
    memory: dict[int, int] = {}
    if shared and emulate is None:
        memory = share_memory(
            context.node, sockets, _native.shared_transport_bytes(), _MESH_SECONDS
        )
    for peer, sock in sockets.items():
        if peer in memory:
            exchange.add_shared(peer, sock.detach(), memory[peer], context.node < peer)
        elif emulate is not None:
            exchange.add_emulated(peer, sock.detach(), emulate.latency_seconds, emulate.bytes_per_s)
        else:
            exchange.add_tcp(peer, sock.detach())
    return exchange


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
        if not group.changed.wait_for(lambda: "linked" in group.items, _MESH_SECONDS):
            raise StepError(f"the other nodes did not come within {_MESH_SECONDS:g} s")
