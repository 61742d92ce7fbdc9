"""Assignment: what the controller tells a node to load and how to run it. Plain data.

Every node gets the same assignment but for its own settings, and computes its share from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from bandweave.checkpoints.folder import Fingerprint
from bandweave.formats.names import KV_FORMATS, WEIGHT_FORMATS
from bandweave.generation.speculation.controller import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from bandweave.mesh.address import Address
from bandweave.nodes.context import MAX_NODES
from bandweave.planning.profile.emulation import EmulatedLink

WIRE_FORMATS = ("exact", "bf16", "q8")
SPECULATORS = ("off", "ngram", "draft")
_MOST_TOKENS, _MOST_STREAMS, _MOST_ROWS, _MOST_THREADS = 1 << 28, 1 << 16, 1 << 16, 1 << 12
_MOST_CPUS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """``context`` tokens of one sequence, ``streams`` sequences at once; ``max_rows`` rows of a
    step; ``threads`` 0 for the node's own choice; ``cpus`` and ``home``: see ``Binding``, whose
    ``pinned`` the former are; ``addresses`` empty for nodes of one process; ``stall_seconds``: how
    long a peer may make no progress; ``cache``: whether the node may keep packed weights, in the
    folder that its own machine has for them; ``host_id`` and ``own_files``: the controller's host,
    and the keys of its copy's files, which a node on that host need not compare; ``wire``,
    ``emulate``, ``speculate``, ``draft`` and ``draft_tokens`` as in ``EngineOptions``."""

    TYPE: ClassVar[str] = "load"

    model: str
    fingerprint: Fingerprint
    shares: tuple[Fraction, ...]
    stages: int
    weight_format: str
    kv_format: str
    context: int
    streams: int
    max_rows: int
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    stall_seconds: float
    threads: int = 0
    cpus: tuple[int, ...] = ()
    home: tuple[int, ...] = ()
    spin: bool = True
    isa: str = ""
    cache: bool = False
    wire: str = "exact"
    emulate: EmulatedLink | None = None
    speculate: str = "off"
    draft: str = ""
    draft_fingerprint: Fingerprint | None = None
    draft_tokens: int = DEFAULT_DRAFT_TOKENS
    host_id: str = ""
    own_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """``ValueError`` for an assignment that contradicts itself."""
        for name, value, known in (
            ("weight format", self.weight_format, WEIGHT_FORMATS),
            ("KV format", self.kv_format, KV_FORMATS),
            ("wire format", self.wire, WIRE_FORMATS),
            ("speculation", self.speculate, SPECULATORS),
        ):
            if value not in known:
                raise ValueError(f"{name} {value[:40]!r} is unknown; choose {', '.join(known)}")
        nodes = len(self.shares)
        for name, value, least, most in (
            ("nodes", nodes, 1, MAX_NODES),
            ("names", len(self.names), nodes, nodes),
            ("addresses", len(self.addresses), nodes if self.addresses else 0, nodes),
            ("stages", self.stages, 1, nodes),
            ("tokens of context", self.context, 1, _MOST_TOKENS),
            ("streams", self.streams, 1, _MOST_STREAMS),
            ("rows", self.max_rows, 1, _MOST_ROWS),
            ("threads", self.threads, 0, _MOST_THREADS),
            ("pinned processors", len(self.cpus), 0, _MOST_THREADS),
            ("draft tokens", self.draft_tokens, 1, MAX_DRAFT_TOKENS),
            ("seconds of patience", self.stall_seconds, 0.01, 86400),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")
        if any(cpu >= _MOST_CPUS for cpu in (*self.cpus, *self.home)):
            raise ValueError(f"a processor's number is above {_MOST_CPUS}")
        if not all(0 < port < 65536 for _, port in self.addresses):
            raise ValueError("a node's address has no port")
