"""Simulation: streams, arrivals, unequal stages, links and failures, event by event. Pure.

For what formulas cannot show: queues, batches that form by chance, machines that fail and come
back. Service times are a server's; where the formulas of ``cost`` apply too they agree. The same
seed gives the same run.

Each of a replica's stages serves one batch at a time: of the decoding streams that wait, up to
``batch`` rows, in turn with chunks of prompts, or with them in one step where the engine mixes
them. A link's latency delays a batch, and does not keep the next one from being sent. What happens
when a node fails is in ``failures``.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence

from bandweave.planning.simulation.failures import Failures
from bandweave.planning.simulation.replica import Job, Replica, Stream
from bandweave.planning.simulation.scenario import Outcome, Scenario, StageUse
from bandweave.planning.simulation.server import Server
from bandweave.planning.simulation.takeover import Lineup

_MOST_EVENTS = 1_000_000


def simulate(
    servers: Sequence[Server], scenario: Scenario, lineups: Sequence[Lineup] = ()
) -> Outcome:
    """Runs all replicas side by side; requests go to the one with most free places. ``lineups``: of
    each replica, where the scenario has a takeover."""
    return _World(servers, scenario, lineups).run()


class _World:
    def __init__(
        self, servers: Sequence[Server], scenario: Scenario, lineups: Sequence[Lineup]
    ) -> None:
        assert servers and len(lineups) in (0, len(servers))
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.replicas = [Replica(server, scenario) for server in servers]
        self.now, self.number = 0.0, 0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.waiting: deque[Stream] = deque()
        self.tokens = self.requests = self.recomputed = 0
        self.begun = self.ended = 0  # requests, the warm-up's too
        self.gaps: list[float] = []
        self.firsts: list[float] = []
        self.silences: list[float] = []
        self.failures = Failures(self, lineups)

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
                    self._follow(replica)
        self.failures.begin()
        events, end = 0, scenario.warm_up_s + scenario.seconds
        while self.heap and self.heap[0][0] <= end and events < _MOST_EVENTS and not self._over():
            self.now, _, action = heapq.heappop(self.heap)
            action()
            events += 1
        cut = events >= _MOST_EVENTS
        return self._outcome(self.now if cut or self._over() else end, events, cut)

    def _over(self) -> bool:
        return 0 < self.scenario.requests <= self.ended

    def _interval(self) -> float:
        return self.random.expovariate(self.scenario.arrivals_per_s)

    def _arrive(self) -> None:
        if 0 < self.scenario.requests <= self.begun + len(self.waiting):
            return
        self.at(self._interval(), self._arrive)
        self.waiting.append(Stream(arrived=self.now))
        self.admit()

    def admit(self) -> None:
        places = self.scenario.streams
        while self.waiting:
            free = [r for r in self.replicas if not r.down and len(r.active) < places]
            if not free:
                return
            self._begin(min(free, key=lambda r: len(r.active)), self.waiting.popleft())

    def _follow(self, replica: Replica) -> None:
        """The next request in a place that is always taken, for as long as there are some."""
        if not self.scenario.requests or self.begun < self.scenario.requests:
            self._begin(replica, Stream(arrived=self.now))

    def _begin(self, replica: Replica, stream: Stream) -> None:
        self.begun += 1
        replica.active.append(stream)
        stream.last = self.now
        self.read(replica, stream)

    def read(self, replica: Replica, stream: Stream) -> None:
        """The prompt, and after a failure the answer so far, into the first stage."""
        replica.read(stream, self.scenario.prompt + stream.done)
        # Behind what else happens at this time: all that came together may share a step.
        self.at(0.0, lambda: self._serve(replica, 0))

    def _serve(self, replica: Replica, index: int) -> None:
        stage = replica.stages[index]
        if stage.busy or replica.down:
            return
        job = replica.next_job(index)
        if job is None:
            return
        stage.busy = True
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

    def _pass_on(self, replica: Replica, index: int, job: Job) -> None:
        epoch = replica.epoch
        if index + 1 < len(replica.stages):
            following = replica.stages[index + 1]

            def receive() -> None:
                if replica.epoch == epoch:
                    (following.readings if job.pieces else following.batches).append(job)
                    self._serve(replica, index + 1)

            self.at(replica.service(job)[index + 1][1], receive)
            return
        replica.flying -= bool(job.streams)
        begun = [piece.stream for piece in job.pieces if piece.last]
        for stream in (*job.streams, *begun):
            self._token(replica, stream)
        if job.streams or begun:
            self._serve(replica, 0)

    def _token(self, replica: Replica, stream: Stream) -> None:
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
        if stream.failed is not None:
            self.silences.append(self.now - stream.failed)
            stream.failed = None
            self.failures.heard(replica, stream)
        if stream.done < self.scenario.answer:
            replica.decoding.append(stream)
            return
        replica.active.remove(stream)
        self.requests += counted
        self.ended += 1
        if self.scenario.arrivals_per_s > 0:
            self.admit()
        else:
            self._follow(replica)

    def _outcome(self, end: float, events: int, cut: bool) -> Outcome:
        seconds = max(end - self.scenario.warm_up_s, 1e-9)
        stages = []
        for number, replica in enumerate(self.replicas):
            if replica.down:
                replica.down_s += end - replica.down_since
            names = replica.whole.stages
            for index, (stage, nodes) in enumerate(zip(replica.whole_stages, names, strict=True)):
                stages.append(
                    StageUse(
                        replica=number,
                        stage=index,
                        nodes=nodes,
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
            failures=self.failures.count,
            recomputed_tokens=self.recomputed,
            available=sum(whole) / len(whole),
            events=events,
            cut_short=cut,
            recoveries=self.failures.recovered(),
            silences_s=sorted(self.silences),
            returns=self.failures.returns,
            moved=self.failures.moved,
        )
