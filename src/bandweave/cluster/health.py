"""Health: how the nodes of a cluster are, as data for reports. Plain data; judges nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STATES = ("serving", "silent", "loading", "ready", "spare", "missing")


@dataclass(frozen=True, kw_only=True)
class NodeHealth:
    """A machine, or a process of this one. ``state``: ``"serving"``; ``"silent"``, which gives no
    sign of life while nobody waits for it; ``"loading"``, which takes a share; ``"ready"``, which
    takes part from the next change on; ``"spare"``, which does when another one fails;
    ``"missing"``, which was a node and is none, or ended. ``since`` seconds; ``reason``: why, where
    it is not serving. ``slowed``: how many times longer its weights take it than they did, 1 where
    it is as fast as ever or nothing is known. ``group``: of those that hold the model each, None
    where there is one; ``stage`` and ``share`` of the weights (0 to 1) of one that serves, None of
    others."""

    node: int
    name: str
    state: str
    since: float = 0.0
    reason: str = ""
    slowed: float = 1.0
    group: int | None = None
    stage: int | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Answers wait. ``reason``: a sentence without its full stop; ``seconds`` so far; ``retry``:
    seconds after which it is worth asking again; ``over_patience``: nobody who asks is kept
    waiting any more."""

    reason: str
    seconds: float
    retry: float
    over_patience: bool


@dataclass(frozen=True, kw_only=True)
class ClusterHealth:
    """``outage``: None while answers are computed."""

    nodes: Sequence[NodeHealth] = ()
    outage: Outage | None = None
    generation: int = 1
