"""What nodes tell of their work: their bills, and what node 0 does at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class AskStatistics:
    """Asks for ``Statistics``."""

    TYPE: ClassVar[str] = "ask_statistics"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A node's bills, of prefill and of decode steps, and its peak memory."""

    TYPE: ClassVar[str] = "statistics"
    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class AskState:
    """Asks node 0 for an ``EngineState``."""

    TYPE: ClassVar[str] = "ask_state"


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What node 0 does at the moment; see ``generation.state``."""

    TYPE: ClassVar[str] = "state"
    running: int
    waiting: int
    pages: int
    free_pages: int
    kept_pages: int
    preempted: int
    steps: int
    seconds: float
    durations: tuple[int, ...]
    read: int
    written: int
    ended: int
    in_flight: int = 0
