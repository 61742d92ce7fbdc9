"""Connections on which both sides have proved the secret. Plain data."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import NamedTuple

from bandweave.handshake.hello import Hello
from bandweave.mesh.channel import Channel
from bandweave.mesh.sealing import Keys
from bandweave.mesh.stream import Stream


class Secured(NamedTuple):
    """A connection as its connector has it; ``hello`` is the acceptor's. The socket is in blocking
    mode. ``keys``: what has to seal all that crosses it, None where it is plain."""

    socket: socket.socket
    hello: Hello
    keys: Keys | None

    def channel(self, peer: str) -> Channel:
        """For messages."""
        return Channel(self.socket, peer, keys=self.keys)

    def stream(self) -> Stream:
        """For bytes."""
        return Stream(self.socket, self.keys)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A connection as its acceptor has it: from ``peer``, which said ``hello``; the rest as
    ``Secured``. ``local``: nothing of it leaves this machine."""

    socket: socket.socket
    hello: Hello
    peer: str
    keys: Keys | None = field(default=None, repr=False)
    local: bool = False


class Arrived(NamedTuple):
    """What a node gets of a ``Connection``, whoever accepted it."""

    socket: socket.socket
    keys: Keys | None
    local: bool

    def stream(self) -> Stream:
        """For bytes."""
        return Stream(self.socket, self.keys)
