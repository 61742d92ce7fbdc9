"""A trial: the truth first, undisturbed; then faults, one after the other, for as long as is asked;
then whether all is as it was.

Knows a cluster and its streams by their interfaces.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.faults import NOTHING, Fault, story
from benchmarks.chaos.foretold import Pace, pace_of
from benchmarks.chaos.silences import Felt, back, silences, spoke
from benchmarks.chaos.streams import Crowd, get
from benchmarks.crowd import Question
from benchmarks.vitals import Vitals, vitals

_LOOK_SECONDS = 0.1
_STREAMS_RETURN_SECONDS = 120.0
_MACHINES_RETURN_SECONDS = 200.0
_CALM_SECONDS = 2.0
_CALM_TIMES = 2  # moments without a fault, to compare with
_STATUS = "/v1/status"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``pauses``: between faults, in seconds, from and to."""

    seconds: float
    seed: int
    questions: Sequence[Question]
    kinds: Sequence[str]
    pauses: tuple[float, float] = (2.0, 6.0)
    pairs: bool = True
    patience: float = 180.0


@dataclass(kw_only=True)
class Found:
    """What came of it. ``nodes``: at the start and at the end; ``left``: sentences on what should
    not be; ``before``, ``after``: of the server's process; ``streams``: how many ask at a time;
    ``anew``: nodes that die are started again at once."""

    streams: int = 0
    anew: bool = False
    asked: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    felt: list[Felt] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    nodes: tuple[int, int] = (0, 0)
    before: Vitals | None = None
    after: Vitals | None = None
    pace: Pace | None = None
    weight_bytes: float = 0.0

    @property
    def fine(self) -> bool:
        tried = any(one.kind != NOTHING for one in self.felt)
        return tried and bool(self.asked) and not (self.lost or self.changed or self.left)


async def play(cluster: Cluster, plan: Plan, say: Say) -> Found:
    """All of it but what stopping the cluster shows."""
    found = Found(streams=len(plan.questions), anew=cluster.anew)
    crowd = Crowd(port=cluster.port, questions=plan.questions, patience=plan.patience)
    begun = time.monotonic()
    looks = [(begun, await _settled_status(cluster))]
    await crowd.once()
    say(f"the truth: {len(crowd.truth)} answers in {time.monotonic() - begun:.1f} s, undisturbed")
    looks.append((time.monotonic(), await _settled_status(cluster)))
    if not crowd.lost:
        again = time.monotonic()
        await crowd.once()  # or it is not the faults that change them
        looks.append((looks[1][0] + time.monotonic() - again, await _settled_status(cluster)))
        found.pace = pace_of(looks, len(plan.questions))
        found.weight_bytes = sum(
            node.get("weight_bytes") or 0 for node in looks[-1][1].get("nodes") or ()
        )
    if crowd.lost or crowd.changed:
        found.lost = [f"undisturbed: {one.failure}" for one in crowd.lost]
        found.changed = [_difference(crowd, one.number, one.text) for one in crowd.changed]
        return found
    count = len(crowd.heard)
    found.before, nodes = vitals(cluster.process), cluster.nodes()
    over = asyncio.Event()
    asking = asyncio.create_task(crowd.until(over))
    try:
        await _storm(cluster, plan, crowd, found, say)
        found.left += await _whole_again(cluster, nodes)
        found.nodes = (nodes, cluster.nodes())
    finally:
        over.set()
    await asking
    found.asked = len(crowd.heard) - count
    found.lost = [f"{one.failure} (asked {one.asked - begun:.1f} s in, ended after "
                  f"{(one.over or 0) - one.asked:.1f} s, {len(one.came)} pieces)"
                  for one in crowd.lost]  # fmt: skip
    found.changed = [_difference(crowd, one.number, one.text) for one in crowd.changed]
    found.after = vitals(cluster.process)
    found.left += _growth(found.before, found.after)
    return found


async def _storm(cluster: Cluster, plan: Plan, crowd: Crowd, found: Found, say: Say) -> None:
    begun = time.monotonic()
    known = {one.get("at") for one in await _recoveries(cluster)}
    calm = [Fault(blows=(), pause_s=_CALM_SECONDS, hold_s=0.0)] * _CALM_TIMES
    faults = story(plan.seed, cluster.count, plan.kinds, pauses=plan.pauses, pairs=plan.pairs)
    for fault in chain(calm, faults):
        await asyncio.sleep(fault.pause_s)
        if time.monotonic() - begun > plan.seconds:
            return
        at = time.monotonic()
        struck = await _strike(cluster, fault, crowd)
        if not await _return(crowd, struck):
            found.left.append(f"{fault.title}: the streams did not go on within "
                              f"{_STREAMS_RETURN_SECONDS:.0f} s")  # fmt: skip
        news = [one for one in await _recoveries(cluster) if one.get("at") not in known]
        known |= {one.get("at") for one in news}
        felt = Felt(title=fault.title, kind=fault.kind, at_s=at - begun, recoveries=tuple(news),
                    silences=silences(crowd.heard, struck),
                    spoke=silences([one for one in crowd.heard if spoke(one, struck)],
                                   struck))  # fmt: skip
        found.felt.append(felt)
        say(f"{felt.at_s:5.1f} s  {felt.title}: next token after {felt.median:.2f} s, at worst "
            f"{felt.worst:.2f} s; {cluster.nodes()} nodes; {len(crowd.heard)} asked, "
            f"{len(crowd.lost)} lost, {len(crowd.changed)} changed")  # fmt: skip


async def _strike(cluster: Cluster, fault: Fault, crowd: Crowd) -> float:
    """Begins and ends a fault; when it began."""
    struck = time.monotonic()
    for blow in fault.blows:
        await asyncio.to_thread(cluster.strike, blow)
    try:
        await asyncio.sleep(fault.hold_s)
    finally:
        for blow in fault.blows:
            await asyncio.to_thread(cluster.undo, blow)
    return struck


async def _return(crowd: Crowd, struck: float) -> bool:
    deadline = time.monotonic() + _STREAMS_RETURN_SECONDS
    while not back(crowd.heard, struck, time.monotonic(), _CALM_SECONDS):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


async def _whole_again(cluster: Cluster, nodes: int) -> list[str]:
    """Waits, while the streams go on, until as many nodes take part as at the start."""
    deadline = time.monotonic() + _MACHINES_RETURN_SECONDS
    while True:
        part = len((await _status(cluster)).get("nodes") or ())
        if part >= nodes:
            return []
        if time.monotonic() > deadline:
            return [f"{part} of {nodes} nodes take part {_MACHINES_RETURN_SECONDS:.0f} s after the "
                    "last fault was undone"]  # fmt: skip
        await asyncio.sleep(0.5)


async def _settled_status(cluster: Cluster) -> dict[str, Any]:
    """Its figures are half a second old at most."""
    await asyncio.sleep(0.7)
    return await _status(cluster)


async def _recoveries(cluster: Cluster) -> list[dict[str, Any]]:
    return list((await _status(cluster)).get("recoveries") or ())


async def _status(cluster: Cluster) -> dict[str, Any]:
    try:
        return json.loads(await get(cluster.port, _STATUS))
    except (OSError, ValueError, TimeoutError):
        return {}


def _growth(before: Vitals, after: Vitals) -> list[str]:
    """Of the server's process, beyond what its caches and a few late connections explain."""
    grown = []
    if after.descriptors > before.descriptors + 16:
        grown.append(f"the server has {after.descriptors} descriptors, {before.descriptors} before")
    if after.threads > before.threads + 8:
        grown.append(f"the server has {after.threads} threads, {before.threads} before")
    if after.mib > 1.5 * before.mib + 64:
        grown.append(f"the server has {after.mib:.0f} MiB, {before.mib:.0f} before")
    return grown


def _difference(crowd: Crowd, number: int, text: str) -> str:
    truth = crowd.truth[number]
    at = next((i for i, (a, b) in enumerate(zip(truth, text, strict=False)) if a != b),
              min(len(truth), len(text)))  # fmt: skip
    return (f"{crowd.questions[number].kind} {number}: differs at {at} of {len(truth)}: "
            f"{truth[at - 30 : at + 40]!r} became {text[at - 30 : at + 40]!r}")  # fmt: skip
