"""Generation: turns requests into steps and steps into tokens, on node 0.

A step mixes one decoding row of every running answer with a chunk of a prompt, so that any number
of answers share the weights' way through the memory; where all decode, rows of drafted tokens may
join them. Knows executors, sampling and speculation; knows no text, no sockets and no nodes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import PAGE_SIZE, Executor
from bandweave.generation.answering import Answering
from bandweave.generation.pages import PagePool
from bandweave.generation.pieces import Piece, make_step
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import NoTokenError, sample
from bandweave.generation.speculation import Drafts, Speculation

F32 = npt.NDArray[np.float32]
OnTokens = Callable[[Sequence[tuple[int, int]]], object]  # a step's: request, token
Cancelled = Callable[[], frozenset[int]]  # indices of requests to end now


@dataclass(eq=False, kw_only=True)
class _Rows:
    """An answer's rows of a step: its next tokens, the last ``wants`` of which ask for logits; all
    of those but the first are drafted. ``right``: tokens that turned out to be the answer's."""

    one: Answering
    tokens: list[int]
    wants: int
    right: int = 0

    def __post_init__(self) -> None:
        self.right = len(self.tokens)

    def follow(self, choices: Iterable[int]) -> list[int]:
        """Appends the tokens chosen from the rows, lazily, for as long as they are what the draft
        said and the answer goes on. An answer of which none can be chosen ends alone."""
        first = len(self.tokens) - self.wants + 1
        drafted = self.tokens[first:]
        new: list[int] = []
        try:
            for token in choices:
                self.one.append(token)
                new.append(token)
                place = len(new) - 1
                if self.one.reason or place == len(drafted) or token != drafted[place]:
                    break
        except NoTokenError as error:
            self.one.fail(str(error))
        self.right = first + len(new) - 1
        return new


class Generator:
    """Runs batches of requests over one executor. ``embed`` maps token ids ``[T]`` to float32 rows
    ``[T, hidden_size]``; ``context`` is how many tokens one sequence may have."""

    def __init__(
        self,
        executor: Executor,
        embed: Callable[[npt.NDArray[np.int32]], F32],
        *,
        num_pages: int,
        context: int,
        max_rows: int,
        vocab_size: int,
        exp: Callable[[F32], F32],
        speculation: Speculation | None = None,
    ) -> None:
        self._executor, self._embed, self._exp = executor, embed, exp
        self._speculation = speculation
        self._pool = PagePool(num_pages)
        self._context, self._max_rows, self._vocab_size = context, max_rows, vocab_size

    def check(self, request: Request) -> None:
        """``ValueError`` for a request that cannot be run here."""
        count = len(request.tokens)
        if count == 0:
            raise ValueError("the prompt is empty; give at least one token")
        if count >= self._context:
            raise ValueError(
                f"the prompt has {count} tokens, but the context holds {self._context}, the "
                "answer included; shorten the prompt or raise --context"
            )
        if -(-self._context // PAGE_SIZE) > self._pool.num_pages:
            raise ValueError(
                f"{self._pool.num_pages} KV pages of {PAGE_SIZE} tokens do not hold one context "
                f"of {self._context} tokens"
            )
        for token in request.tokens:
            if not 0 <= token < self._vocab_size:
                raise ValueError(
                    f"token {token} is not in the vocabulary of {self._vocab_size} tokens"
                )

    def run(
        self,
        requests: Sequence[Request],
        *,
        on_tokens: OnTokens = lambda tokens: None,
        cancelled: Cancelled = frozenset,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> list[Result]:
        """Answers all requests together.

        ``chunk``: prompt tokens a step at most (None: as many as fit). ``digest``: hash the logits
        of every generated position. ``reuse`` off computes every prompt from its start.
        """
        for request in requests:
            self.check(request)
        if chunk is not None and chunk < 1:
            raise ValueError(f"prompt chunks of {chunk} tokens; it must be at least 1")
        if not reuse:
            self._pool.forget()
            if self._speculation is not None:
                self._speculation.drafter.forget()
        waiting = [self._admit(i, request, digest) for i, request in enumerate(requests)]
        everyone, running = list(waiting), []
        try:
            while waiting or running:
                ended = cancelled()
                for one in (*waiting, *running):
                    if one.index in ended:
                        one.reason = "cancelled"
                running = self._release_ended(running)
                waiting = [one for one in waiting if not one.reason]
                while waiting and self._has_room(waiting[0], running):
                    running.append(self._start(waiting.pop(0), reuse))
                if running:
                    self._step(running, chunk or self._max_rows, on_tokens)
        finally:
            for one in running:
                self._release(one)
        return [one.result() for one in everyone]

    def _has_room(self, one: Answering, running: list[Answering]) -> bool:
        """Whether there are pages for a whole answer beside those that run already."""
        pages = sum(-(-other.most_tokens // PAGE_SIZE) for other in (one, *running))
        return pages <= self._pool.num_pages

    def _release_ended(self, running: list[Answering]) -> list[Answering]:
        for one in running:
            if one.reason:
                self._release(one)
        return [one for one in running if not one.reason]

    def _release(self, one: Answering) -> None:
        self._pool.release(one.cached)
        if self._speculation is not None:
            self._speculation.end(one.index)

    def _start(self, one: Answering, reuse: bool) -> Answering:
        if reuse:
            one.cached = self._pool.claim(one.request.tokens)
        one.reused = len(one.cached.tokens)
        one.started = time.perf_counter()
        return one

    def _admit(self, index: int, request: Request, digest: bool) -> Answering:
        room = self._context - len(request.tokens)
        wanted = request.params.max_tokens
        return Answering(
            index=index,
            request=request,
            limit=room if wanted is None else min(room, wanted),
            digest=hashlib.sha256() if digest else None,
        )

    def _step(self, running: list[Answering], chunk: int, on_tokens: OnTokens) -> None:
        rows, drafts = self._rows(running, chunk)
        step = make_step(
            self._pool,
            [Piece(cached=row.one.cached, tokens=row.tokens, wants=row.wants) for row in rows],
            prefill=any(not row.one.answer for row in rows),
        )
        embeddings = self._embed(step.tokens)
        wanting = [row for row in rows if row.wants]
        begun = time.perf_counter()
        if all(row.one.needs_best_only for row in wanting):
            best = iter(self._executor.best(step, embeddings))
            computed = time.perf_counter()
            chosen = [self._take(row, best) for row in wanting]
        else:
            logits = iter(self._executor.run(step, embeddings))
            computed = time.perf_counter()
            chosen = [self._sample(row, logits) for row in wanting]
        now = time.perf_counter()
        for row in rows:
            # Keys and values behind the last token that was right are overwritten by the next step,
            # and nothing reads beyond its own position.
            row.one.cached.tokens += row.tokens[: row.right]
        for row in wanting:
            drafting = 0.0 if drafts is None else drafts.seconds
            row.one.account(drafting=drafting, begun=begun, computed=computed, chosen=now)
        if self._speculation is not None and drafts is not None:
            accepted = [max(0, len(tokens) - 1) for tokens in chosen]
            ones = [row.one for row in wanting]
            self._speculation.observe(ones, drafts, accepted, computed - begun)
        on_tokens(
            [
                (row.one.index, token)
                for row, tokens in zip(wanting, chosen, strict=True)
                for token in tokens
            ]
        )

    def _rows(self, running: list[Answering], chunk: int) -> tuple[list[_Rows], Drafts | None]:
        """Whose tokens the step computes: decoding answers first, with their drafts where nobody
        else is waiting, then prompts while room is."""
        decoding = [one for one in running if one.answer][: self._max_rows]
        rows = [_Rows(one=one, tokens=one.todo(), wants=1) for one in decoding]
        drafts = None
        if self._speculation is not None and len(decoding) == len(running):
            drafts = self._speculation.plan(decoding, self._max_rows)
            for row, tokens in zip(rows, drafts.tokens, strict=True):
                row.tokens += tokens
                row.wants += len(tokens)
        room = min(chunk, self._max_rows - len(rows))
        for one in running:
            if one.answer or room <= 0:
                continue
            todo = one.todo()
            piece = todo[:room]
            room -= len(piece)
            rows.append(_Rows(one=one, tokens=piece, wants=int(len(piece) == len(todo))))
        return rows, drafts

    def _take(self, row: _Rows, best: Iterator[int]) -> list[int]:
        """The answer's new tokens, from the best token of each of its rows."""
        own = [next(best) for _ in range(row.wants)]
        return row.follow(_checked(row.one, token) for token in own)

    def _sample(self, row: _Rows, logits: Iterator[F32]) -> list[int]:
        """The answer's new tokens, from the logits of each of its rows: each is chosen, and hashed,
        as if those before it had come one at a time."""
        own = [next(logits) for _ in range(row.wants)]
        return row.follow(self._choose(row.one, one) for one in own)

    def _choose(self, one: Answering, logits: F32) -> int:
        if not np.isfinite(logits).all():
            raise _not_finite(one)
        if one.digest is not None:
            one.digest.update(np.ascontiguousarray(logits, dtype="<f4").tobytes())
        request = one.request
        return sample(
            logits,
            request.params,
            request.tokens,
            one.answer,
            one.length,
            request.choice,
            self._exp,
        )


def _checked(one: Answering, token: int) -> int:
    """The best token; ``NoTokenError`` where there is none."""
    if token < 0:
        raise _not_finite(one)
    return token


def _not_finite(one: Answering) -> NoTokenError:
    return NoTokenError(
        f"a logit of position {one.length} is not finite: the model's numbers have left their "
        "range there; another weight format or prompt may stay inside"
    )
