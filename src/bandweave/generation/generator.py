"""Generator: the loop of node 0. Turns what the scheduler plans into steps, and steps into tokens.

A step mixes one decoding row of every running sequence with a chunk of a prompt, so that any number
of answers share the weights' way through the memory; where all decode, rows of drafted tokens may
join them. Where the executor takes several steps at a time, each has a part of the sequences. Knows
executors, sampling and speculation; knows no text, no sockets and no nodes.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as ListOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Executor, StepError
from bandweave.executors.last_hidden import LastHidden
from bandweave.executors.pipeline import OneAtATime, Pipeline
from bandweave.generation.batch import make_step
from bandweave.generation.choosing import Chooser, take
from bandweave.generation.flight import Flight, embedded, reading
from bandweave.generation.grammar import MakeMatcher, Matcher
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.masks import MaskMaker
from bandweave.generation.request import USUAL, CallOptions, Request, Result
from bandweave.generation.scheduler import Scheduler, SequenceRows
from bandweave.generation.speculation.controller import Drafts, Speculation
from bandweave.generation.speculation.drafter import Computed
from bandweave.generation.state import Counts, State

F32 = npt.NDArray[np.float32]
OnTokens = Callable[[ListOf[tuple[int, int]]], object]  # a step's: request, token
Cancelled = Callable[[], frozenset[int]]  # indices of requests to end now


@dataclass(frozen=True, kw_only=True)
class Events:
    """What a step has brought: new tokens as ``(id, token)``, in order, with their ``logprobs``,
    none where none were asked for, and the requests that have ended since the step before."""

    tokens: ListOf[tuple[int, int]]
    finished: ListOf[tuple[int, Result]]
    logprobs: ListOf[TokenLogprobs | None] = ()


class Generator:
    """Answers requests over one executor. ``embed`` maps token ids ``[T]`` to float32 rows
    ``[T, hidden_size]``; ``context`` is how many tokens one sequence may have; ``num_states``: the
    slots of the model's recurrent states, 0 where it has none. ``make_matcher`` may be set later.
    ``pipeline``: how the executor takes steps, None for one at a time. Where it takes several, the
    drafter must need nothing of the executor's.

    Requests arrive by ``submit`` and leave by ``cancel``, at any time between two calls of
    ``step``; one at a time of all these may run.
    """

    def __init__(
        self,
        executor: Executor,
        embed: Callable[[npt.NDArray[np.int32]], F32],
        *,
        num_pages: int,
        context: int,
        max_rows: int,
        vocab_size: int,
        num_states: int = 0,
        exp: Callable[[F32], F32],
        speculation: Speculation | None = None,
        make_matcher: MakeMatcher | None = None,
        last_hidden: Callable[[], LastHidden] | None = None,
        pipeline: Pipeline | None = None,
    ) -> None:
        self._make_matcher = make_matcher
        self._make_last_hidden, self._last_hidden = last_hidden, None
        self._counts = Counts()
        self._executor, self._embed, self._chooser = executor, embed, Chooser(exp)
        self._speculation = speculation
        self._max_rows = max_rows
        self._pipeline = pipeline or OneAtATime(executor)
        self._scheduler = Scheduler(
            num_pages=num_pages, context=context, max_rows=max_rows, vocab_size=vocab_size,
            num_states=num_states, groups=self._pipeline.depth,
        )  # fmt: skip
        self._flights: deque[Flight] = deque()  # in the order in which they began
        self._ended_at = 0.0  # the last step
        self._in_flight = 0  # steps under way when the last one ended
        self._reading: ListOf[tuple[int, int]] = ()
        self._masks = MaskMaker()

    @property
    def busy(self) -> bool:
        """Whether ``step`` has something to do."""
        return self._scheduler.busy

    @property
    def reading(self) -> ListOf[tuple[int, int]]:
        """The requests whose prompts are being read, each with the tokens that were read before the
        step at hand. Any thread may look."""
        return self._reading

    def check(self, request: Request) -> None:
        """``ValueError`` for a request that cannot be run here."""
        self._scheduler.check(request)

    def submit(self, id: int, request: Request, options: CallOptions = USUAL) -> None:
        """A request arrives, under a name that no other has at present. ``ValueError`` where it
        cannot be run; then nothing has changed."""
        self._scheduler.check(request)
        matcher = self._matcher(request)
        self._prepare_embedding(request)
        sequence = self._scheduler.submit(id, request, options)
        sequence.matcher = matcher
        sequence.arrived = time.perf_counter()

    def cancel(self, id: int) -> None:
        """A request is no longer wanted; ``step`` tells of its end. Nothing happens where it has
        ended already."""
        self._scheduler.cancel(id)

    def retract(self, id: int) -> None:
        """A request that has just arrived never did: nothing tells of its end."""
        self._scheduler.retract(id)

    def step(self) -> Events:
        """Ends the next step, if there is anything to compute; what it has brought. As many as the
        executor's pipeline takes are under way then.

        ``StepError`` where the executor fails, after which all requests are as before the steps
        that were under way.
        """
        tokens: list[tuple[int, int]] = []
        logprobs: list[TokenLogprobs | None] = []
        try:
            self._start_steps()
            self._in_flight = len(self._flights)
            if self._flights:
                tokens, logprobs = self._finish()
        except StepError:
            self.drain()
            raise
        finished = self._scheduler.take_ended()
        if self._speculation is not None:
            for sequence in finished:
                self._speculation.end(sequence.id)
        self._counts.ended += len(finished)
        results = [(one.id, one.result()) for one in finished]
        return Events(tokens=tokens, finished=results, logprobs=logprobs)

    def _start_steps(self) -> None:
        while len(self._flights) < self._pipeline.depth:
            if (
                self._flights
                and self._last_hidden is not None
                and embedded(self._flights[-1].batch)
            ):
                return  # what is read behind that step is of the last that began
            batch = self._scheduler.schedule()
            if not batch:
                return
            now = time.perf_counter()
            for rows in batch:
                rows.sequence.started = rows.sequence.started or now
            self._start(batch)

    def drain(self) -> None:
        """Waits for the steps that are under way, and drops what they bring: all requests are as
        before them."""
        with contextlib.suppress(StepError):
            while self._pipeline.under_way:
                self._pipeline.finish()
        for flight in self._flights:
            self._scheduler.fail(flight.batch)
        self._flights.clear()

    def state(self) -> State:
        """What goes on, and what has been counted since the start."""
        scheduler = self._scheduler
        return State(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages=scheduler.pool.num_pages,
            free_pages=scheduler.pool.available,
            kept_pages=scheduler.pool.kept,
            preempted=scheduler.preempted,
            in_flight=self._in_flight if self.busy else 0,
            counts=self._counts,
        )

    def set_grammars(self, make_matcher: MakeMatcher) -> None:
        """From now on requests may have grammars."""
        self._make_matcher = make_matcher

    def run(
        self,
        requests: ListOf[Request],
        *,
        on_tokens: OnTokens = lambda tokens: None,
        cancelled: Cancelled = frozenset,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> list[Result]:
        """Answers all requests together, named by their indices; see ``CallOptions``."""
        assert not self.busy, "requests are under way"
        options = CallOptions(chunk=chunk, digest=digest, reuse=reuse)
        for request in requests:
            self._scheduler.check(request)
        for index, request in enumerate(requests):
            self.submit(index, request, options)
        results: dict[int, Result] = {}
        try:
            while self.busy:
                for index in cancelled():
                    self.cancel(index)
                events = self.step()
                if events.tokens:
                    on_tokens(events.tokens)
                results.update(events.finished)
        except BaseException:
            self.abandon()
            raise
        return [results[index] for index in range(len(requests))]

    def abandon(self) -> None:
        """Ends all requests without a word."""
        self.drain()
        for sequence in self._scheduler.abandon():
            if self._speculation is not None:
                self._speculation.end(sequence.id)

    def _matcher(self, request: Request) -> Matcher | None:
        if not request.grammar:
            return None
        if self._make_matcher is None:
            raise ValueError("this engine has no vocabulary for grammars")
        matcher = self._make_matcher(request.grammar)
        for token in request.said:
            matcher.accept(token)
        return matcher

    def _prepare_embedding(self, request: Request) -> None:
        if request.embeds and self._last_hidden is None:
            if self._make_last_hidden is None:
                raise ValueError("this engine gives no embeddings")
            self._last_hidden = self._make_last_hidden()

    def _start(self, batch: list[SequenceRows]) -> None:
        try:
            flight = self._prepare(batch)
        except StepError:
            self._scheduler.fail(batch)
            raise
        self._flights.append(flight)
        self._reading = [one for flight in self._flights for one in reading(flight.batch)]
        self._pipeline.start(flight.step, flight.embeddings, best_only=flight.best_only)

    def _prepare(self, batch: list[SequenceRows]) -> Flight:
        drafts = self._draft(batch)
        prefill = any(rows.sequence.is_fresh for rows in batch if not rows.sequence.decodes)
        step = make_step(batch, prefill=prefill)
        asked = [rows.sequence for rows in batch if rows.wants or rows.heard]
        return Flight(
            batch=batch,
            step=step,
            embeddings=self._embed(step.tokens),
            drafts=drafts,
            masks=self._masks.begin([rows for rows in batch if rows.wants]),
            best_only=all(one.needs_best_only for one in asked),
            begun=time.perf_counter(),
        )

    def _finish(self) -> tuple[list[tuple[int, int]], list[TokenLogprobs | None]]:
        """Ends the step that began first."""
        flight = self._flights[0]
        batch, wanting, begun = flight.batch, flight.wanting, flight.begun
        outcome = self._pipeline.finish()
        computed = time.perf_counter()
        if isinstance(outcome, list):
            best = iter(outcome)
            chosen = [take(rows, best) for rows in batch]
        else:
            logits = iter(outcome)
            chosen = [self._chooser.sample(rows, logits, flight.masks) for rows in batch]
        chosen = [tokens for tokens, rows in zip(chosen, batch, strict=True) if rows.wants]
        self._keep_embeddings(flight)
        self._flights.popleft()
        now = time.perf_counter()
        if self._speculation is not None:
            self._speculation.drafter.observe(_computed(batch))
        self._scheduler.commit(batch, now - begun)
        # Of steps that are under way together each counts from the end of the one before it.
        self._counts.add(batch, now - max(begun, self._ended_at))
        self._ended_at = now
        drafts = flight.drafts
        for rows in wanting:
            drafting = 0.0 if drafts is None else drafts.seconds
            rows.sequence.account(drafting=drafting, begun=begun, computed=computed, chosen=now)
        if self._speculation is not None and drafts is not None:
            accepted = [max(0, len(tokens) - 1) for tokens in chosen]
            sequences = [rows.sequence for rows in wanting]
            self._speculation.observe(sequences, drafts, accepted, computed - begun)
        told: list[tuple[int, int]] = []
        logprobs: list[TokenLogprobs | None] = []
        for rows, tokens in zip(wanting, chosen, strict=True):
            told += [(rows.sequence.id, token) for token in tokens]
            own = rows.sequence.logprobs[-len(tokens) :] if tokens else []
            logprobs += own or [None] * len(tokens)
        return told, logprobs if any(logprobs) else []

    def _keep_embeddings(self, flight: Flight) -> None:
        """Of the sequences that want one, where their prompts' last rows were in the step, which
        was the last that began."""
        places = {} if self._last_hidden is None else embedded(flight.batch)
        if places:
            assert self._last_hidden is not None and len(self._flights) == 1
            hidden = self._last_hidden.read(flight.step, list(places))
            for one, row in zip(places.values(), hidden, strict=True):
                one.embedding = tuple(map(float, row))

    def _draft(self, batch: list[SequenceRows]) -> Drafts | None:
        """Drafted tokens for a step where all that run decode, and all have rows in a step: else
        prompts, or others, can use the rows."""
        if self._speculation is None:
            return None
        if not all(one.decodes and one.under_way for one in self._scheduler.running):
            self._speculation.drafter.settle()
            return None
        drafts = self._speculation.plan([rows.sequence for rows in batch], self._max_rows)
        for rows, tokens in zip(batch, drafts.tokens, strict=True):
            self._scheduler.extend(rows, tokens)
            del tokens[rows.wants - 1 :]
        return drafts


def _computed(batch: ListOf[SequenceRows]) -> list[Computed]:
    """What a step has computed, before it counts as cached."""
    computed: list[Computed] = []
    row = 0
    for rows in batch:
        position = len(rows.cached.tokens)
        following = rows.sequence.said(position + 1, position + 1 + rows.right)
        if following:
            computed.append(
                Computed(
                    id=rows.sequence.id,
                    row=row,
                    position=position,
                    following=following,
                    pages=tuple(rows.cached.pages),
                )
            )
        row += len(rows.tokens)
    return computed
