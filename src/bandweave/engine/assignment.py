"""Assignment: what the controller tells a node to load and how to run it. Plain data.

Every node gets the same assignment but for its own settings, and computes its share from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bandweave.engine.speculation import DEFAULT_DRAFT_TOKENS
from bandweave.mesh.address import Address
from bandweave.planning.emulation import EmulatedLink

WEIGHT_FORMATS = ("q4", "q8", "bf16", "f32")
KV_FORMATS = ("f16", "f32")
WIRE_FORMATS = ("exact", "bf16", "q8")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """``context`` tokens of one sequence, ``streams`` sequences at once; ``max_rows`` rows of a
    step; ``threads`` 0 for the node's own choice; ``cpus`` and ``home``: see ``Binding``, whose
    ``pinned`` the former are; ``addresses`` empty for nodes of one process; ``stall_seconds``: how
    long a peer may make no progress; ``cache``: whether the node may keep packed weights, in the
    folder that its own machine has for them; ``wire``, ``emulate``, ``speculate``,
    ``draft`` and ``draft_tokens`` as in ``EngineOptions``."""

    model: str
    fingerprint: str
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
    draft_fingerprint: str = ""
    draft_tokens: int = DEFAULT_DRAFT_TOKENS

    def to_message(self) -> dict[str, Any]:
        fields = dict(vars(self))
        fields["shares"] = [str(share) for share in self.shares]
        fields["emulate"] = None if self.emulate is None else vars(self.emulate)
        return {"type": "load", **fields}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Assignment:
        fields = {key: value for key, value in message.items() if key != "type"}
        fields["shares"] = tuple(Fraction(share) for share in fields["shares"])
        fields["addresses"] = tuple((str(host), int(port)) for host, port in fields["addresses"])
        fields["names"] = tuple(fields["names"])
        fields["cpus"] = tuple(fields["cpus"])
        fields["home"] = tuple(fields["home"])
        if fields["emulate"] is not None:
            fields["emulate"] = EmulatedLink(**fields["emulate"])
        return cls(**fields)
