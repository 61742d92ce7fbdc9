"""Simulation: streams, arrivals, unequal stages, links and failures, event by event. Pure.

For what the formulas of ``cost`` cannot show: queues, batches that form by chance, machines that
fail and come back. Service times are those of ``cost``; where both apply they agree. The same seed
gives the same run.

A replica is a deployment. Each of its stages serves one batch at a time: of the decoding streams
that wait, up to ``batch`` rows, in turn with chunks of prompts. A link's latency delays a batch,
and does not keep the next one from being sent. Where one node of a replica fails the caches of all
its streams are of no use: when it is back they read prompt and answer so far again.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bandweave.planning.cost import stage_costs
from bandweave.planning.deployment import Deployment
from bandweave.planning.layer_cost import RowBatch
from bandweave.planning.scenario import Outcome, Scenario, StageUse

_MOST_EVENTS = 1_000_000


def simulate(deployments: Sequence[Deployment], scenario: Scenario) -> Outcome:
    """Runs all replicas side by side; requests go to the one with most free places."""
    return _World(deployments, scenario).run()


@dataclass(eq=False)
class _Stream:
    arrived: float
    done: int = 0
    last: float = 0.0
    first: float | None = None


@dataclass(frozen=True, eq=False)
class _Job:
    """A batch of decoding streams, or a chunk of one stream's prompt."""

    streams: tuple[_Stream, ...]
    rows: int
    span: int = 0  # of a prompt: tokens of the whole reading; 0: decoding
    last: bool = True  # chunk of the reading


@dataclass(eq=False)
class _Stage:
    decoding: deque[_Stream] = field(default_factory=deque)  # the first stage's: not yet batched
    batches: deque[_Job] = field(default_factory=deque)
    chunks: deque[_Job] = field(default_factory=deque)
    busy: bool = False
    read_last: bool = False
    worked_s: float = 0.0


class _Replica:
    def __init__(self, deployment: Deployment, scenario: Scenario) -> None:
        self.deployment = deployment
        # An engine that runs one step at a time is one server, however many stages it has.
        self.overlaps = deployment.engine.overlaps_stages
        self.stages = [_Stage() for _ in (deployment.stages if self.overlaps else (0,))]
        self.active: list[_Stream] = []
        self.down = 0
        self.down_since = 0.0
        self.down_s = 0.0
        self.epoch = 0  # events of earlier ones are void
        self.flying = 0  # batches under way
        self.batch = scenario.batch or math.ceil(scenario.streams / len(self.stages))
        self._context = scenario.context
        self._known: dict[tuple[int, int], list[tuple[float, float]]] = {}

    def may_batch(self) -> bool:
        """No more batches at once than all streams fill: else small ones would stay small."""
        return self.flying < math.ceil(len(self.active) / self.batch)

    def service(self, job: _Job) -> list[tuple[float, float]]:
        """By stage: seconds of work, and seconds on the way to it before."""
        key = (job.rows, job.span)
        if key not in self._known:
            batch = RowBatch(rows=job.rows, streams=1 if job.span else job.rows,
                             start=0 if job.span else self._context, decoding=not job.span,
                             span=job.span)  # fmt: skip
            costs = [cost.items for cost in stage_costs(self.deployment, batch)]
            times = [(items.total_s - items.handover_s, items.handover_s) for items in costs]
            if not self.overlaps:
                times = [(sum(work + way for work, way in times), 0.0)]
            self._known[key] = times
        return self._known[key]


class _World:
    def __init__(self, deployments: Sequence[Deployment], scenario: Scenario) -> None:
        assert deployments
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.replicas = [_Replica(deployment, scenario) for deployment in deployments]
        self.now, self.number = 0.0, 0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.waiting: deque[_Stream] = deque()
        self.tokens = self.requests = self.failures = self.recomputed = 0
        self.gaps: list[float] = []
        self.firsts: list[float] = []

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.number += 1  # of events at one time the older comes first
        heapq.heappush(self.heap, (self.now + delay, self.number, action))

    def run(self) -> Outcome:
        scenario = self.scenario
        if scenario.arrivals_per_s > 0:
            self.at(self._interval(), self._arrive)
        else:
            for replica in self.replicas:
                for _ in range(scenario.streams):
                    self._begin(replica, _Stream(arrived=0.0))
        if scenario.mean_uptime_s is not None:
            for replica in self.replicas:
                for _ in replica.deployment.nodes:
                    self._plan_failure(replica)
        events, end = 0, scenario.warm_up_s + scenario.seconds
        while self.heap and self.heap[0][0] <= end and events < _MOST_EVENTS:
            self.now, _, action = heapq.heappop(self.heap)
            action()
            events += 1
        cut = events >= _MOST_EVENTS
        return self._outcome(self.now if cut else end, events, cut)

    def _interval(self) -> float:
        return self.random.expovariate(self.scenario.arrivals_per_s)

    def _arrive(self) -> None:
        self.at(self._interval(), self._arrive)
        self.waiting.append(_Stream(arrived=self.now))
        self._admit()

    def _admit(self) -> None:
        places = self.scenario.streams
        while self.waiting:
            free = [r for r in self.replicas if not r.down and len(r.active) < places]
            if not free:
                return
            self._begin(min(free, key=lambda r: len(r.active)), self.waiting.popleft())

    def _begin(self, replica: _Replica, stream: _Stream) -> None:
        replica.active.append(stream)
        stream.last = self.now
        self._read(replica, stream)

    def _read(self, replica: _Replica, stream: _Stream) -> None:
        """Chunks of the prompt, and after a failure of the answer so far, into the first stage."""
        span = self.scenario.prompt + stream.done
        count = math.ceil(span / replica.deployment.engine.chunk_rows)
        rows = math.ceil(span / count)
        for index in range(count):
            chunk = _Job(streams=(stream,), rows=rows, span=span, last=index == count - 1)
            replica.stages[0].chunks.append(chunk)
        self._serve(replica, 0)

    def _serve(self, replica: _Replica, index: int) -> None:
        stage = replica.stages[index]
        if stage.busy or replica.down:
            return
        if index == 0 and stage.decoding and not stage.batches and replica.may_batch():
            count = min(replica.batch, len(stage.decoding))
            streams = tuple(stage.decoding.popleft() for _ in range(count))
            stage.batches.append(_Job(streams=streams, rows=count))
            replica.flying += 1
        if stage.chunks and (not stage.batches or not stage.read_last):
            job = stage.chunks.popleft()
        elif stage.batches:
            job = stage.batches.popleft()
        else:
            return
        stage.busy, stage.read_last = True, bool(job.span)
        work = replica.service(job)[index][0]
        epoch = replica.epoch

        def finish() -> None:
            if replica.epoch == epoch:
                stage.busy = False
                if self.now > self.scenario.warm_up_s:
                    stage.worked_s += min(work, self.now - self.scenario.warm_up_s)
                self._pass_on(replica, index, job)
                self._serve(replica, index)

        self.at(work, finish)

    def _pass_on(self, replica: _Replica, index: int, job: _Job) -> None:
        epoch = replica.epoch
        if index + 1 < len(replica.stages):
            following = replica.stages[index + 1]

            def receive() -> None:
                if replica.epoch == epoch:
                    (following.chunks if job.span else following.batches).append(job)
                    self._serve(replica, index + 1)

            self.at(replica.service(job)[index + 1][1], receive)
        elif job.last:
            replica.flying -= not job.span
            for stream in job.streams:
                self._token(replica, stream)
            self._serve(replica, 0)

    def _token(self, replica: _Replica, stream: _Stream) -> None:
        counted = self.now > self.scenario.warm_up_s
        if counted:
            self.tokens += 1
        if stream.first is None:
            stream.first = self.now
            if counted:
                self.firsts.append(self.now - stream.arrived)
        elif counted:
            self.gaps.append(self.now - stream.last)
        stream.last = self.now
        stream.done += 1
        if stream.done < self.scenario.answer:
            replica.stages[0].decoding.append(stream)
            return
        replica.active.remove(stream)
        self.requests += counted
        if self.scenario.arrivals_per_s > 0:
            self._admit()
        else:
            self._begin(replica, _Stream(arrived=self.now))

    def _plan_failure(self, replica: _Replica) -> None:
        uptime = self.scenario.mean_uptime_s
        assert uptime is not None
        self.at(self.random.expovariate(1 / uptime), lambda: self._fail(replica))

    def _fail(self, replica: _Replica) -> None:
        self.failures += 1
        replica.down += 1
        if replica.down == 1:
            replica.down_since = self.now
        replica.epoch += 1
        replica.flying = 0
        for stage in replica.stages:
            stage.decoding.clear()
            stage.batches.clear()
            stage.chunks.clear()
            stage.busy = False
        self.at(self.scenario.repair_s, lambda: self._repaired(replica))

    def _repaired(self, replica: _Replica) -> None:
        replica.down -= 1
        self._plan_failure(replica)
        if replica.down:
            return
        replica.down_s += self.now - replica.down_since
        for stream in list(replica.active):
            self.recomputed += self.scenario.prompt + stream.done if stream.done else 0
            self._read(replica, stream)
        self._admit()

    def _outcome(self, end: float, events: int, cut: bool) -> Outcome:
        seconds = max(end - self.scenario.warm_up_s, 1e-9)
        stages = []
        for number, replica in enumerate(self.replicas):
            if replica.down:
                replica.down_s += end - replica.down_since
            deployment = replica.deployment
            groups = (
                [stage.nodes for stage in deployment.stages]
                if replica.overlaps
                else [tuple(range(len(deployment.nodes)))]
            )
            for index, (stage, nodes) in enumerate(zip(replica.stages, groups, strict=True)):
                stages.append(
                    StageUse(
                        replica=number,
                        stage=index,
                        nodes=tuple(deployment.nodes[node].name for node in nodes),
                        utilisation=min(1.0, stage.worked_s / seconds),
                    )
                )
        whole = [1 - replica.down_s / end for replica in self.replicas] if end else [1.0]
        return Outcome(
            seconds=seconds,
            tokens=self.tokens,
            requests=self.requests,
            waiting=len(self.waiting),
            gaps_s=sorted(self.gaps),
            first_tokens_s=sorted(self.firsts),
            stages=tuple(stages),
            failures=self.failures,
            recomputed_tokens=self.recomputed,
            available=sum(whole) / len(whole),
            events=events,
            cut_short=cut,
        )
