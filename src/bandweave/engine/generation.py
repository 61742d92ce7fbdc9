"""Generation: turns requests into steps and steps into tokens, on node 0.

A step mixes one decoding row of every running answer with a chunk of a prompt, so that any number
of answers share the weights' way through the memory. Knows executors and sampling; knows no text,
no sockets and no nodes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.engine.executor import PAGE_SIZE, Executor, Step
from bandweave.engine.pages import Cached, PagePool
from bandweave.engine.request import Request, Result, Timing
from bandweave.engine.sampling import sample

F32 = npt.NDArray[np.float32]
OnToken = Callable[[int, int], None]  # index of the request, token
Cancelled = Callable[[], frozenset[int]]  # indices of requests to end now


@dataclass(eq=False, kw_only=True)
class _Running:
    index: int
    request: Request
    limit: int  # tokens of the answer at most
    cached: Cached = field(default_factory=Cached)
    answer: list[int] = field(default_factory=list)
    digest: Any = None
    reused: int = 0
    reason: str = ""
    started: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    sampling: float = 0.0

    @property
    def length(self) -> int:
        return len(self.request.tokens) + len(self.answer)

    @property
    def most_tokens(self) -> int:
        return len(self.request.tokens) + self.limit

    @property
    def needs_best_only(self) -> bool:
        """Whether the best token alone decides: greedy, nothing changes or hashes the logits."""
        params = self.request.params
        return params.temperature == 0 and not params.has_penalties and self.digest is None

    def append(self, token: int, *, computed_at: float, chosen_at: float) -> None:
        """The next token of the answer; the times are those of its logits and of its choice."""
        if not self.answer:
            self.first_at = computed_at
        self.last_at = chosen_at
        self.sampling += chosen_at - computed_at
        self.answer.append(token)
        if token in self.request.end_tokens:
            self.reason = "stop"
        elif len(self.answer) >= self.limit:
            self.reason = "length"

    def todo(self) -> list[int]:
        """Tokens whose keys and values are not in the cache yet."""
        known = len(self.cached.tokens)
        prompt = self.request.tokens
        if known < len(prompt):
            return list(prompt[known:])
        return self.answer[known - len(prompt) :]


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
    ) -> None:
        self._executor, self._embed, self._exp = executor, embed, exp
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
        on_token: OnToken = lambda index, token: None,
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
                    self._step(running, chunk or self._max_rows, on_token)
        finally:
            for one in running:
                self._pool.release(one.cached)
        return [_result(one) for one in everyone]

    def _has_room(self, one: _Running, running: list[_Running]) -> bool:
        """Whether there are pages for a whole answer beside those that run already."""
        pages = sum(-(-other.most_tokens // PAGE_SIZE) for other in (one, *running))
        return pages <= self._pool.num_pages

    def _release_ended(self, running: list[_Running]) -> list[_Running]:
        for one in running:
            if one.reason:
                self._pool.release(one.cached)
        return [one for one in running if not one.reason]

    def _start(self, one: _Running, reuse: bool) -> _Running:
        if reuse:
            one.cached = self._pool.claim(one.request.tokens)
        one.reused = len(one.cached.tokens)
        one.started = time.perf_counter()
        return one

    def _admit(self, index: int, request: Request, digest: bool) -> _Running:
        room = self._context - len(request.tokens)
        wanted = request.params.max_tokens
        return _Running(
            index=index,
            request=request,
            limit=room if wanted is None else min(room, wanted),
            digest=hashlib.sha256() if digest else None,
        )

    def _step(self, running: list[_Running], chunk: int, on_token: OnToken) -> None:
        rows = self._rows(running, chunk)
        step = self._make_step(rows)
        embeddings = self._embed(step.tokens)
        wanting = [one for one, _, wants in rows if wants]
        if all(one.needs_best_only for one in wanting):
            tokens = self._executor.best(step, embeddings)
            before = time.perf_counter()
        else:
            logits = self._executor.run(step, embeddings)
            before = time.perf_counter()
            tokens = [self._choose(one, logits[i]) for i, one in enumerate(wanting)]
        now = time.perf_counter()
        for one, piece, _ in rows:
            one.cached.tokens += piece
        for one, token in zip(wanting, tokens, strict=True):
            one.append(token, computed_at=before, chosen_at=now)
            on_token(one.index, token)

    def _rows(self, running: list[_Running], chunk: int) -> list[tuple[_Running, list[int], bool]]:
        """Whose tokens the step computes: decoding answers first, then prompts while room is."""
        decoding = [one for one in running if one.answer][: self._max_rows]
        rows = [(one, one.todo(), True) for one in decoding]
        room = min(chunk, self._max_rows - len(rows))
        for one in running:
            if one.answer or room <= 0:
                continue
            todo = one.todo()
            piece = todo[:room]
            room -= len(piece)
            rows.append((one, piece, len(piece) == len(todo)))
        return rows

    def _make_step(self, rows: list[tuple[_Running, list[int], bool]]) -> Step:
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wants: list[bool] = []
        for slot, (one, piece, wanted) in enumerate(rows):
            known = len(one.cached.tokens)
            self._pool.grow(one.cached, known + len(piece))
            tokens += piece
            slots += [slot] * len(piece)
            positions += range(known, known + len(piece))
            wants += [False] * (len(piece) - 1) + [wanted]
        longest = max(len(one.cached.pages) for one, _, _ in rows)
        tables = np.full((len(rows), longest), -1, np.int32)
        for slot, (one, _, _) in enumerate(rows):
            tables[slot, : len(one.cached.pages)] = one.cached.pages
        return Step(
            tokens=np.array(tokens, np.int32),
            slots=np.array(slots, np.int32),
            positions=np.array(positions, np.int32),
            wants_logits=np.array(wants, np.bool_),
            page_tables=tables,
        )

    def _choose(self, one: _Running, logits: F32) -> int:
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


def _result(one: _Running) -> Result:
    timing = Timing(
        prefill=one.first_at - one.started if one.answer else 0.0,
        decode=one.last_at - one.first_at if one.answer else 0.0,
        sampling=one.sampling,
        prompt_tokens=len(one.request.tokens),
        reused_tokens=one.reused,
        decode_tokens=max(0, len(one.answer) - 1),
    )
    return Result(
        tokens=tuple(one.answer),
        reason=one.reason,
        logits_digest="" if one.digest is None else one.digest.hexdigest(),
        timing=timing,
    )
