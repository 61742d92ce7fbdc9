"""Generator: the loop of node 0. Turns what the scheduler plans into steps, and steps into tokens.

A step mixes one decoding row of every running sequence with a chunk of a prompt, so that any number
of answers share the weights' way through the memory; where all decode, rows of drafted tokens may
join them. Knows executors, sampling and speculation; knows no text, no sockets and no nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as ListOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Executor, StepError
from bandweave.executors.last_hidden import LastHidden
from bandweave.generation.batch import make_step
from bandweave.generation.choosing import Chooser, take
from bandweave.generation.grammar import MakeMatcher, Matcher
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.masks import MaskMaker
from bandweave.generation.request import Request, Result
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
    ) -> None:
        self._make_matcher = make_matcher
        self._make_last_hidden, self._last_hidden = last_hidden, None
        self._counts = Counts()
        self._executor, self._embed, self._chooser = executor, embed, Chooser(exp)
        self._speculation = speculation
        self._max_rows = max_rows
        self._scheduler = Scheduler(
            num_pages=num_pages, context=context, max_rows=max_rows, vocab_size=vocab_size,
            num_states=num_states,
        )  # fmt: skip
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

    def check(self, request: Request, *, chunk: int | None = None) -> None:
        """``ValueError`` for a request that cannot be run here."""
        self._scheduler.check(request, chunk=chunk)

    def submit(
        self,
        id: int,
        request: Request,
        *,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> None:
        """A request arrives, under a name that no other has at present.

        ``chunk``: prompt tokens a step at most (None: as many as fit). ``digest``: hash the logits
        of every generated position. ``reuse`` off computes the prompt from its start.
        ``ValueError`` where it cannot be run; then nothing has changed.
        """
        self._scheduler.check(request, chunk=chunk)
        matcher = self._matcher(request)
        self._prepare_embedding(request)
        sequence = self._scheduler.submit(id, request, chunk=chunk, digest=digest, reuse=reuse)
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
        """Computes the next step, if there is anything to compute; what it has brought.

        ``StepError`` where the executor fails, after which all requests are as before the step.
        """
        tokens: list[tuple[int, int]] = []
        logprobs: list[TokenLogprobs | None] = []
        now = time.perf_counter()
        batch = self._scheduler.schedule()
        for rows in batch:
            rows.sequence.started = rows.sequence.started or now
        if batch:
            try:
                tokens, logprobs = self._compute(batch)
            except StepError:
                self._scheduler.fail(batch)
                raise
        finished = self._scheduler.take_ended()
        if self._speculation is not None:
            for sequence in finished:
                self._speculation.end(sequence.id)
        self._counts.ended += len(finished)
        results = [(one.id, one.result()) for one in finished]
        return Events(tokens=tokens, finished=results, logprobs=logprobs)

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
        """Answers all requests together, named by their indices; see ``submit``."""
        assert not self.busy, "requests are under way"
        for request in requests:
            self._scheduler.check(request, chunk=chunk)
        for index, request in enumerate(requests):
            self.submit(index, request, chunk=chunk, digest=digest, reuse=reuse)
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

    def _keep_embeddings(self, batch: list[SequenceRows]) -> None:
        """Of the sequences that want one, where their prompts' last rows are in the step."""
        if self._last_hidden is None:
            return
        count = 0  # of rows that asked for logits
        for rows in batch:
            asked, one = rows.heard + rows.wants, rows.sequence
            place = len(one.request.tokens) - 1 - len(rows.cached.tokens)  # in these rows
            place -= len(rows.tokens) - asked
            if one.request.embeds and 0 <= place < asked and not one.embedding:
                read = self._last_hidden.read(count + place + 1)
                one.embedding = tuple(map(float, read[-1]))
            count += asked

    def _compute(
        self, batch: list[SequenceRows]
    ) -> tuple[list[tuple[int, int]], list[TokenLogprobs | None]]:
        drafts = self._draft(batch)
        reading = [rows.sequence for rows in batch if not rows.sequence.decodes]
        self._reading = [
            (one.id, min(len(one.cached.tokens), len(one.request.tokens))) for one in reading
        ]
        prefill = any(one.is_fresh for one in reading)
        step = make_step(batch, prefill=prefill)
        embeddings = self._embed(step.tokens)
        wanting = [rows for rows in batch if rows.wants]
        masks = self._masks.begin(wanting)
        begun = time.perf_counter()
        if all(one.sequence.needs_best_only for one in batch if one.wants or one.heard):
            best = iter(self._executor.best(step, embeddings))
            computed = time.perf_counter()
            chosen = [take(rows, best) for rows in batch]
        else:
            logits = iter(self._executor.run(step, embeddings))
            computed = time.perf_counter()
            chosen = [self._chooser.sample(rows, logits, masks) for rows in batch]
        chosen = [tokens for tokens, rows in zip(chosen, batch, strict=True) if rows.wants]
        self._keep_embeddings(batch)
        now = time.perf_counter()
        if self._speculation is not None:
            self._speculation.drafter.observe(_computed(batch))
        self._scheduler.commit(batch, now - begun)
        self._counts.add(batch, now - begun)
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

    def _draft(self, batch: list[SequenceRows]) -> Drafts | None:
        """Drafted tokens for a step in which all that run decode: else prompts can use the rows."""
        if self._speculation is None:
            return None
        all_run = len(batch) == len(self._scheduler.running)
        if not (all_run and all(rows.sequence.decodes for rows in batch)):
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
