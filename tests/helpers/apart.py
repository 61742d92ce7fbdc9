"""A node that shares no memory with others of its machine, so that its links are sockets."""

from __future__ import annotations

from bandweave.engine import node
from bandweave.mesh import shared
from bandweave.nodes.context import NodeContext


def serve(context: NodeContext) -> None:
    """As ``engine.node.serve``."""
    shared._MAKER = shared.NoMemory()
    node.serve(context)
