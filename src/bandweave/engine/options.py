"""EngineOptions: how a model is split and run, checked. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bandweave.engine.assignment import SPECULATORS, WIRE_FORMATS
from bandweave.formats.names import KV_FORMATS, WEIGHT_FORMATS
from bandweave.generation.speculation.controller import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from bandweave.nodes.context import STALL_SECONDS
from bandweave.planning.profile.emulation import EmulatedLink

DEFAULT_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is split and run. ``shares`` has one entry a node; ``hosts`` (``host:port`` of
    workers, with their ``secret``) replaces local processes; ``in_process`` makes nodes threads of
    this process, for tests. With ``fit`` the shares may shrink on hosts whose memory is short.
    ``threads`` a node (None: the processors shared out); ``context`` tokens a sequence (None: the
    model's, at most 4096); ``isa`` a kernel variant by name; ``cache``: whether nodes may keep
    packed weights, in ``cache_folder`` on this machine (empty: nowhere) and in their own folders on
    hosts; ``wire``: activations cross ``"exact"``, or rounded to ``"bf16"`` or ``"q8"``, which
    changes the answer; ``emulate``: nodes of this machine talk as over that link, in the place of
    their own; ``speculate``: who drafts tokens, ``"off"``, ``"ngram"`` or ``"draft"``, the model in
    the folder ``draft``, at most ``draft_tokens`` at a time."""

    shares: tuple[Fraction, ...] = (Fraction(1),)
    fit: bool = False
    stages: int = 1
    hosts: tuple[str, ...] = ()
    secret: bytes | None = None
    threads: int | None = None
    weight_format: str = "q4"
    kv_format: str = "f16"
    context: int | None = None
    streams: int = 1
    max_rows: int = 256
    isa: str = ""
    stall_seconds: float = STALL_SECONDS
    in_process: bool = False
    cache: bool = False
    cache_folder: str = ""
    wire: str = "exact"
    emulate: EmulatedLink | None = None
    speculate: str = "off"
    draft: str = ""
    draft_tokens: int = DEFAULT_DRAFT_TOKENS

    def __post_init__(self) -> None:
        if self.weight_format not in WEIGHT_FORMATS:
            raise ValueError(
                f"weight format {self.weight_format!r} is unknown; "
                f"choose {', '.join(WEIGHT_FORMATS)}"
            )
        if self.kv_format not in KV_FORMATS:
            raise ValueError(
                f"KV format {self.kv_format!r} is unknown; choose {', '.join(KV_FORMATS)}"
            )
        if self.wire not in WIRE_FORMATS:
            raise ValueError(
                f"wire format {self.wire!r} is unknown; choose {', '.join(WIRE_FORMATS)}"
            )
        for name in ("stages", "streams", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads a node; it must be at least 1")
        if self.hosts and len(self.hosts) != len(self.shares):
            raise ValueError(f"{len(self.hosts)} hosts, but {len(self.shares)} shares")
        if self.emulate is not None and (self.hosts or self.in_process or len(self.shares) < 2):
            raise ValueError(
                "a link can be emulated between nodes of this machine only, two or more; give "
                "--nodes 2, and no --hosts"
            )
        if self.hosts and self.secret is None:
            raise ValueError("hosts need the token that their workers have; give --token-file")
        if self.speculate not in SPECULATORS:
            raise ValueError(
                f"speculation {self.speculate!r} is unknown; choose {', '.join(SPECULATORS)}"
            )
        if (self.speculate == "draft") != bool(self.draft):
            raise ValueError("a draft model and speculation by one belong together; give both")
        if not 1 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise ValueError(
                f"drafts of {self.draft_tokens} tokens; they may have 1 to {MAX_DRAFT_TOKENS}"
            )
