"""A replica in a simulation: its streams, and what waits and works at its stages. Pure state."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bandweave.generation.rows import share_rows
from bandweave.planning.simulation.scenario import Scenario
from bandweave.planning.simulation.server import Batch, Server, Times


@dataclass(eq=False)
class Stream:
    """A request that has a place. Times in seconds of the simulation's clock."""

    arrived: float
    done: int = 0
    last: float = 0.0
    first: float | None = None
    failed: float | None = None  # when a failure interrupted it, until its next token


@dataclass(frozen=True, eq=False)
class Piece:
    """``rows`` tokens of a stream's prompt of ``span``; ``last``: its first token follows."""

    stream: Stream
    rows: int
    span: int
    last: bool


@dataclass(frozen=True, eq=False)
class Job:
    """A step's rows: the next one of decoding streams, and pieces of prompts."""

    streams: tuple[Stream, ...] = ()
    pieces: tuple[Piece, ...] = ()

    def batch(self, context: int) -> Batch:
        rows = sum(piece.rows for piece in self.pieces)
        spans = sum(piece.rows * piece.span for piece in self.pieces)
        return Batch(
            context=context,
            decoding=len(self.streams),
            rows=rows,
            prompts=len(self.pieces),
            span=round(spans / rows) if rows else 0,
        )


@dataclass(eq=False)
class StageState:
    """``batches`` and ``readings`` came from the stage before; ``worked_s`` after the warm-up."""

    batches: deque[Job] = field(default_factory=deque)
    readings: deque[Job] = field(default_factory=deque)
    busy: bool = False
    read_last: bool = False
    worked_s: float = 0.0


class Replica:
    """One server with its queues. Of the first stage ``decoding`` streams and ``prompts`` wait that
    are not yet in any job."""

    def __init__(self, server: Server, scenario: Scenario) -> None:
        self.whole = server
        self._states: dict[int, list[StageState]] = {}
        self.active: list[Stream] = []
        self.decoding: deque[Stream] = deque()
        self.prompts: deque[Piece] = deque()
        self.down = False  # nobody is answered
        self.down_since = 0.0
        self.down_s = 0.0
        self.epoch = 0  # events of earlier ones are void
        self.flying = 0  # batches under way
        self.steps = 0
        self._scenario = scenario
        self.form(server)

    def form(self, server: Server) -> None:
        """Runs on as this server. Nothing may be under way."""
        self.server = server
        if id(server) not in self._states:
            self._states[id(server)] = [StageState() for _ in server.stages]
        self.stages = self._states[id(server)]
        self.batch = self._scenario.batch or math.ceil(self._scenario.streams / len(self.stages))
        self._known: dict[Batch, Sequence[Times]] = {}

    @property
    def whole_stages(self) -> list[StageState]:
        """Those of the server with which it began."""
        return self._states[id(self.whole)]

    def read(self, stream: Stream, span: int) -> None:
        """Queues a prompt of ``span`` tokens: whole where pieces are cut to fit a step, else in
        equal chunks."""
        count = 1 if self.server.mixes else math.ceil(span / self.server.chunk_rows)
        rows = math.ceil(span / count)
        for index in range(count):
            self.prompts.append(Piece(stream=stream, rows=rows, span=span, last=index == count - 1))

    def next_job(self, index: int) -> Job | None:
        """What the stage does next, if anything; it is taken from its queue."""
        stage = self.stages[index]
        if index == 0:
            if self.server.mixes:
                return self._mixed_job()
            self._fill(stage)
        if stage.readings and (not stage.batches or not stage.read_last):
            job = stage.readings.popleft()
        elif stage.batches:
            job = stage.batches.popleft()
        else:
            return None
        stage.read_last = bool(job.pieces)
        return job

    def _fill(self, stage: StageState) -> None:
        if self.decoding and not stage.batches and self._may_batch():
            count = min(self.batch, len(self.decoding))
            streams = tuple(self.decoding.popleft() for _ in range(count))
            stage.batches.append(Job(streams=streams))
            self.flying += 1
        if self.prompts and not stage.readings:
            stage.readings.append(Job(pieces=(self.prompts.popleft(),)))

    def _may_batch(self) -> bool:
        """No more batches at once than all streams fill: else small ones would stay small."""
        return self.flying < math.ceil(len(self.active) / self.batch)

    def _mixed_job(self) -> Job | None:
        """What the engine's scheduler puts into a step."""
        self.steps += 1
        # An even part of all that decode for each of the steps under way.
        writing = sum(stream.first is not None for stream in self.active)
        group = min(self.batch, math.ceil(writing / len(self.stages)))
        count, reads = share_rows(
            min(group, len(self.decoding)),
            [(piece.rows, None) for piece in self.prompts],
            max_rows=self.server.chunk_rows,
            step=self.steps,
        )
        streams = tuple(self.decoding.popleft() for _ in range(count))
        pieces: list[Piece] = []
        for rows in filter(None, reads):
            piece = self.prompts.popleft()
            if piece.rows > rows:
                self.prompts.appendleft(replace(piece, rows=piece.rows - rows))
                piece = replace(piece, rows=rows, last=False)
            pieces.append(piece)
        if not streams and not pieces:
            return None
        self.flying += bool(streams)
        return Job(streams=streams, pieces=tuple(pieces))

    def drop(self) -> None:
        """What was under way is lost: a node failed, or others take over."""
        self.epoch += 1
        self.flying = 0
        self.decoding.clear()
        self.prompts.clear()
        for stage in self.stages:
            stage.batches.clear()
            stage.readings.clear()
            stage.busy = False

    def service(self, job: Job) -> Sequence[Times]:
        """By stage: seconds of work, and seconds on the way to it before."""
        batch = job.batch(self._scenario.context)
        if batch not in self._known:
            self._known[batch] = self.server.times(batch)
        return self._known[batch]
