"""EngineOptions: how a model is split and run, checked. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bandweave.engine.assignment import KV_FORMATS, WEIGHT_FORMATS

DEFAULT_CONTEXT = 4096
STALL_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is split and run. ``shares`` has one entry a node; ``hosts`` (``host:port`` of
    workers, with their ``secret``) replaces local processes; ``in_process`` makes nodes threads of
    this process, for tests. With ``fit`` the shares may shrink on hosts whose memory is short.
    ``threads`` a node (None: the processors shared out); ``context`` tokens a sequence (None: the
    model's, at most 4096); ``isa`` a kernel variant by name; ``cache`` a folder for packed
    weights, ``OWN_CACHE`` for the nodes' own, or empty for none."""

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
    cache: str = ""

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
        for name in ("stages", "streams", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads a node; it must be at least 1")
        if self.hosts and len(self.hosts) != len(self.shares):
            raise ValueError(f"{len(self.hosts)} hosts, but {len(self.shares)} shares")
        if self.hosts and self.secret is None:
            raise ValueError("hosts need the token that their workers have; give --token-file")
