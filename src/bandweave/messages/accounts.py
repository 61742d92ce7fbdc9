"""What nodes tell of their work: their bills, and what node 0 does at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bandweave.messages.message import Message, Question


@dataclass(frozen=True, kw_only=True)
class Statistics(Message, type="statistics"):
    """A node's bills, of prefill and of decode steps, and its peak memory."""

    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class AskStatistics(Question[Statistics], type="ask_statistics"):
    """Asks for ``Statistics``."""


@dataclass(frozen=True, kw_only=True)
class EngineState(Message, type="state"):
    """What node 0 does at the moment; see ``generation.state``."""

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


@dataclass(frozen=True, kw_only=True)
class AskState(Question[EngineState], type="ask_state"):
    """Asks node 0 for an ``EngineState``."""
