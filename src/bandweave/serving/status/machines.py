"""Machines: who holds what of the model, over which links, and how fast that should be.

What an open session knows, for the status. Knows profiles; measures nothing.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.engine.engine import NodeStatistics
from bandweave.engine.holdings import plan_of
from bandweave.messages import EngineState
from bandweave.planning.profile.prediction import Load
from bandweave.programs.split import Split
from bandweave.serving.prediction import (
    Predictor,
    find_predictor,
    limit_tokens_per_s,
    stored_profile,
)
from bandweave.serving.session import Session


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Tokens a second of all streams: as ``predicted``, and the ``limit`` at which the machines'
    memories are read without a pause."""

    predicted: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """What node 0 said of the engine, and every node of its accounts, within a step or two; ``at``
    in seconds of a clock that only grows."""

    state: EngineState
    nodes: Sequence[NodeStatistics]
    at: float


@dataclass(frozen=True, kw_only=True)
class Machines:
    """``plan``: as ``plan_of``; ``links``: ``nodes`` (two ranks), ``transport``,
    ``latency_seconds`` and ``bytes_per_s``, the latter None where nothing was measured;
    ``look``: asks the nodes for their accounts, which may take as long as a step; ``expect``: of so
    many streams with so many tokens of context each, None where no profile says."""

    split: Split
    plan: dict[str, Any]
    links: Sequence[dict[str, Any]]
    look: Callable[[], Look]
    expect: Callable[[int, int], Expected | None]


def machines_of(session: Session) -> Machines:
    """As the session's engine runs now. Reads the stored profile once."""
    engine, lineup = session.engine, session.engine.lineup
    options = lineup.options
    found = find_predictor(stored_profile(), options)
    predictor = None
    if found is not None and len(found.nodes) == len(lineup.nodes):
        nodes = tuple(
            dataclasses.replace(node, threads=info.threads)
            for node, info in zip(found.nodes, lineup.nodes, strict=True)
        )
        predictor = dataclasses.replace(found, nodes=nodes)

    def expect(streams: int, context: int) -> Expected | None:
        if predictor is None:
            return None
        load = Load(
            prompt_tokens=max(1, context),
            new_tokens=1,
            streams=streams,
            weight_format=options.run.weight_format,
            kv_format=options.run.kv_format,
            max_rows=max(streams, options.run.max_rows),
        )
        try:
            prediction = predictor.predict(session.folder, lineup.split, load)
        except ValueError:  # the profile lacks the format
            return None
        return Expected(
            predicted=prediction.decode_tokens_per_s,
            limit=limit_tokens_per_s(predictor, lineup.split, prediction),
        )

    def look() -> Look:
        state = engine.state()
        return Look(state=state, nodes=engine.statistics(), at=time.monotonic())

    return Machines(
        split=lineup.split,
        plan=plan_of(lineup),
        links=_links(predictor, len(lineup.nodes), options.hosts),
        look=look,
        expect=expect,
    )


def _links(predictor: Predictor | None, nodes: int, hosts: Sequence[str]) -> list[dict[str, Any]]:
    links = []
    for b in range(nodes):
        for a in range(b):
            link = None if predictor is None else predictor.link(a, b)
            rate = None if link is None or math.isinf(link.bytes_per_s) else link.bytes_per_s
            links.append(
                {
                    "nodes": [a, b],
                    "transport": link.transport if link else "tcp" if hosts else "shared",
                    "latency_seconds": None if link is None else link.latency_seconds,
                    "bytes_per_s": rate,
                }
            )
    return links
