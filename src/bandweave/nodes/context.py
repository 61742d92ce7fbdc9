"""NodeContext: all that a node is given when it starts; and the state that thread nodes share.

Knows how a node is reached, not what it computes.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandweave.handshake.rendezvous import Door
from bandweave.mesh.address import Address
from bandweave.mesh.channel import Channel
from bandweave.mesh.routes import Route


def print_error(sentence: str) -> None:
    """A line on standard error, if that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


STALL_SECONDS = 5.0  # how long a peer may make no progress


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """What ``serve`` gets.

    ``name`` is for people, ``node`` the id within ``session``. ``channel`` leads to the controller.
    ``listener`` gets the other nodes' connections, which come to ``address``; both are None for
    nodes that are threads of one process, which share ``in_process_group`` instead. ``threads`` is
    how many threads the node may compute with, None where that is the node's own choice.
    ``model_roots`` are folders where the node may look for its own copy of a model; ``cache`` is
    the folder for packed weights, empty for none, where the controller leaves that to the node;
    ``isa`` the kernel variant that this machine shall use, empty for the controller's or the
    fastest. ``routes``: what was measured of the ways to other nodes, soonest first.
    ``encrypted``: what leaves this machine must be. ``log`` tells whoever runs the node's machine
    what goes on, ``complain`` what went wrong.
    """

    name: str
    node: int
    session: str
    channel: Channel
    secret: bytes = field(repr=False)
    listener: Door | None = None
    address: Address | None = None
    in_process_group: Any = None
    threads: int | None = None
    model_roots: tuple[Path, ...] = ()
    cache: str = ""
    isa: str = ""
    routes: dict[int, tuple[Route, ...]] = field(default_factory=dict)
    encrypted: bool = False
    log: Callable[[str], None] = lambda sentence: None
    complain: Callable[[str], None] = print_error


@dataclass(frozen=True, kw_only=True)
class ThreadGroup:
    """What thread nodes share by default: their number, and a place to meet under a lock."""

    num_nodes: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    items: dict[Any, Any] = field(default_factory=dict)
