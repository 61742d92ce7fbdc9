"""How nodes meet as a generation, with links of which kind, and how a generation ends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bandweave.handshake.encryption import AUTO, check_encryption
from bandweave.handshake.rendezvous import Meeting
from bandweave.mesh.address import Address
from bandweave.mesh.routes import Route
from bandweave.mesh.sealing import AES, CIPHERS, KEY_BYTES
from bandweave.messages.message import Message, Question
from bandweave.planning.profile.emulation import EmulatedLink
from bandweave.run_options import MAX_NODES

_KEY = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class LinkEncryption:
    """How links between nodes are encrypted: whether (``handshake.encryption``), with which
    ``cipher``, and the ``key`` of the session that they are bound to, in hexadecimal."""

    encryption: str = AUTO
    cipher: str = AES
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """``ValueError`` for what is unknown."""
        check_encryption(self.encryption)
        if self.cipher not in CIPHERS:
            raise ValueError(f"no cipher is called {self.cipher[:40]!r}")
        if self.key and not _KEY.fullmatch(self.key):
            raise ValueError("a key of links that is none")

    def meeting(self, generation: int) -> Meeting:
        """How nodes meet by it."""
        return Meeting(
            generation=generation, encryption=self.encryption, key=bytes.fromhex(self.key)
        )


@dataclass(frozen=True, kw_only=True)
class RouteTaken:
    """Which of a machine's several addresses leads a node to the one of that ``rank``: the soonest
    of its ``routes``, which come in that order."""

    rank: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, kw_only=True)
class Join(Message, type="join"):
    """All nodes have found the model: now they meet, as a new ``generation``, and load what they
    lack of their shares. Of those that take part, in order of their ranks: the ``nodes`` as they
    are numbered, their ``names``, and their ``addresses``, none for nodes of one process;
    ``alternatives``: all of each one's addresses, where any has several.
    ``stall_seconds``: how long a peer may make no progress; ``emulate``: as in
    ``EngineOptions``; ``links``: how they are encrypted."""

    generation: int
    nodes: tuple[int, ...]
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    stall_seconds: float
    emulate: EmulatedLink | None = None
    alternatives: tuple[tuple[Address, ...], ...] = ()
    links: LinkEncryption = LinkEncryption()

    def __post_init__(self) -> None:
        """``ValueError`` for what contradicts itself."""
        count = len(self.nodes)
        for name, value, least, most in (
            ("generation", self.generation, 1, (1 << 32) - 1),
            ("nodes", count, 1, MAX_NODES),
            ("names", len(self.names), count, count),
            ("addresses", len(self.addresses), count if self.addresses else 0, count),
            ("alternatives", len(self.alternatives), count if self.alternatives else 0, count),
            ("seconds of patience", self.stall_seconds, 0.01, 86400),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")
        if len(set(self.nodes)) < count or max(self.nodes) >= MAX_NODES:
            raise ValueError("a node is named twice, or has a number that none has")
        several = (address for addresses in self.alternatives for address in addresses)
        if not all(0 < port < 65536 for _, port in (*self.addresses, *several)):
            raise ValueError("a node's address has no port")


@dataclass(frozen=True, kw_only=True)
class Left(Message, type="left"):
    """A node takes part in no generation."""


@dataclass(frozen=True, kw_only=True)
class Leave(Question[Left], type="leave"):
    """The generation is over; the node keeps its weights. It answers ``Left`` once it has left,
    whatever it did before."""


@dataclass(frozen=True, kw_only=True)
class Broken(Message, type="broken"):
    """A node's generation has ended, by a peer or by numbers out of range. The node keeps its
    weights."""

    generation: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Echo(Message, type="echo"):
    """Asks an idle node for the same, which shows how soon a ``text`` comes there and back."""

    text: str
