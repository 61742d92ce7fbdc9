"""Carried: some requests of one caller, and what has been said of their answers, over any number of
engines' lives. The caller hears tokens and ends as if there had been one.

Any thread. Knows no nodes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bandweave.executors.executor import StepError
from bandweave.generation.request import CallOptions, Request, Result, Timing
from bandweave.routing.call import Cancel, Deliver, Ended, Event, Failed, NewTokens, Reading


@dataclass(eq=False, kw_only=True)
class _Answer:
    """``tokens``: with what the request says that was said before; ``read`` of its prompt."""

    request: Request
    tokens: list[int]
    read: int = 0
    ended: bool = False
    cancelled: bool = False
    carried: bool = False  # began on nodes that are no more
    first_at: float = 0.0
    last_at: float = 0.0

    @property
    def heard(self) -> int:
        """Tokens that the caller was told of."""
        return len(self.tokens) - len(self.request.said)


@dataclass(eq=False, kw_only=True)
class Attempt:
    """One engine's try at what is left of a call: ``indices`` are those of its requests in the
    call, ``open`` how many of them have not ended. ``proves``: it stops behind one more token, to
    see whether that can be computed at all."""

    indices: Sequence[int]
    generation: int
    proves: bool = False
    cancel: Cancel | None = None
    open: int = 0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What to submit for an attempt."""

    attempt: Attempt
    requests: Sequence[Request]
    deliver: Deliver


class Carried:
    """``on_over`` is called once nothing of it is left open; ``on_lost`` when some is that nobody
    computes any more; ``on_token`` when something new came. None of them may wait."""

    def __init__(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        options: CallOptions,
        *,
        on_over: Callable[[Carried], None],
        on_lost: Callable[[Carried], None],
        on_token: Callable[[Carried], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._deliver, self._clock = deliver, clock
        self._on_over, self._on_lost, self._on_token = on_over, on_lost, on_token
        self._answers = [_Answer(request=one, tokens=list(one.said)) for one in requests]
        self._attempt: Attempt | None = None
        self._over = False
        self._tried = 0
        self._lock = threading.RLock()
        self.began = clock()

    # --- for whoever has it computed ---

    @property
    def attached(self) -> bool:
        """Whether an engine computes it."""
        return self._attempt is not None

    @property
    def over(self) -> bool:
        return self._over

    @property
    def tried(self) -> int:
        """The generation of the last engine that tried, 0 where it has proved what it was to."""
        return self._tried

    @property
    def open(self) -> int:
        """Answers that have not ended."""
        return sum(not one.ended for one in self._answers)

    @property
    def unread(self) -> int:
        """Tokens of prompts that are still to be read; of prompts that are alike once."""
        left = {one.request.tokens: one.read for one in self._answers if not one.ended}
        return sum(max(0, len(tokens) - read) for tokens, read in left.items())

    @property
    def history(self) -> list[int]:
        """Tokens of the first prompt and of what was said to it: a conversation goes on there."""
        first = self._answers[0]
        return [*first.request.tokens, *first.tokens]

    @property
    def length(self) -> int:
        """Tokens to read again, of prompts and answers; prompts that are alike once."""
        prompts = {one.request.tokens for one in self._answers if not one.ended}
        answers = sum(one.heard for one in self._answers if not one.ended)
        return sum(map(len, prompts)) + answers

    @property
    def has_grammar(self) -> bool:
        return any(one.request.grammar for one in self._answers if not one.ended)

    @property
    def has_begun(self) -> bool:
        """Whether the caller has heard a token of it."""
        return any(one.heard for one in self._answers)

    def begin(self, generation: int, *, proves: bool = False) -> Ask | None:
        """What an engine is to be asked; None where nothing is left, or where it has been."""
        with self._lock:
            if self._over or self._attempt is not None:
                return None
            indices = [index for index, one in enumerate(self._answers) if not one.ended]
            attempt = Attempt(
                indices=indices, generation=generation, proves=proves, open=len(indices)
            )
            self._attempt, self._tried = attempt, generation
            requests = [self._rest(self._answers[index], proves) for index in indices]
            return Ask(
                attempt=attempt,
                requests=requests,
                deliver=lambda event: self._hear(attempt, event),
            )

    def begun(self, attempt: Attempt, cancel: Cancel) -> None:
        """The engine has been asked; ``cancel`` is its."""
        with self._lock:
            attempt.cancel = cancel
            dropped = self._over and self._attempt is None and attempt.open
            unwanted = [
                place
                for place, index in enumerate(attempt.indices)
                if self._answers[index].cancelled and not self._answers[index].ended
            ]
        if dropped:
            cancel()
        for place in unwanted:
            cancel(place)

    def refused(self, attempt: Attempt) -> None:
        """The engine has not taken it: nobody has tried."""
        with self._lock:
            if self._attempt is attempt:
                self._attempt = None

    def lose(self, attempt: Attempt) -> bool:
        """The engine computes it no more. Whether somebody has to go on with it."""
        with self._lock:
            if self._attempt is not attempt:
                return False
            self._attempt = None
            for one in self._answers:
                one.carried = True
            self._end_unwanted()
        if not self._over:
            self._on_lost(self)
        return not self._over

    def fail(self, error: Exception, attempt: Attempt | None = None) -> None:
        """Nobody goes on with it; where that is an attempt's verdict, if it is the latest."""
        with self._lock:
            if not self._over and attempt in (None, self._attempt):
                self._attempt = None
                self._close()
                self._tell(Failed(error))

    def drop(self) -> None:
        """Somebody else goes on with it, elsewhere: nothing more of it is computed or told."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
            self._close()
        if attempt is not None and attempt.cancel is not None:
            attempt.cancel()

    # --- for the caller ---

    def cancel(self, index: int | None = None) -> None:
        """Ends one of the answers, or all; no matter if they have ended."""
        with self._lock:
            wanted = range(len(self._answers)) if index is None else [index]
            fresh = [
                one
                for one in wanted
                if not (self._answers[one].ended or self._answers[one].cancelled)
            ]
            for one in fresh:
                self._answers[one].cancelled = True
            attempt = self._attempt
            if attempt is None:
                self._end_unwanted()
                return
            places = [attempt.indices.index(one) for one in fresh if one in attempt.indices]
        if attempt.cancel is not None:
            for place in places:
                attempt.cancel(place)

    # --- events ---

    def _hear(self, attempt: Attempt, event: Event) -> None:
        """In a thread of the engine's."""
        with self._lock:
            if self._attempt is not attempt:
                return
            if isinstance(event, NewTokens):
                self._new_tokens(attempt, event)
            elif isinstance(event, Reading):
                self._reading(attempt, event)
            elif isinstance(event, Ended):
                self._ended(attempt, event)
            elif isinstance(event.error, StepError):
                self.lose(attempt)
            else:  # the engine refuses what is asked
                self.fail(event.error)

    def _new_tokens(self, attempt: Attempt, event: NewTokens) -> None:
        now = self._clock()
        tokens: list[tuple[int, int]] = []
        for place, token in event.tokens:
            index = attempt.indices[place]
            one = self._answers[index]
            one.first_at = one.first_at or now
            one.last_at = now
            one.read = len(one.request.tokens)
            one.tokens.append(token)
            tokens.append((index, token))
        self._on_token(self)
        self._tell(NewTokens(tokens, event.logprobs))

    def _reading(self, attempt: Attempt, event: Reading) -> None:
        """Prompts that are read again have been read."""
        moved = False
        for index, tokens in zip(attempt.indices, event.each, strict=True):
            one = self._answers[index]
            if tokens > one.read:
                one.read, moved = tokens, True
        if moved:
            each = tuple(one.read for one in self._answers)
            self._tell(Reading(sum(each), each))

    def _ended(self, attempt: Attempt, event: Ended) -> None:
        index, result = attempt.indices[event.index], event.result
        one = self._answers[index]
        attempt.open -= 1
        # What was to prove that the next token can be computed has, unless that was its end.
        if attempt.proves and not _is_end(one, result):
            one.carried = True
        else:
            self._end(one, index, result)
        if attempt.proves and not attempt.open and not self._over:
            self._attempt, self._tried = None, 0
            self._end_unwanted()
            if not self._over:
                self._on_lost(self)

    def _end(self, one: _Answer, index: int, result: Result) -> None:
        one.ended = True
        if one.carried:
            result = replace(result, timing=self._timing(one, result.timing))
        if not self.open:
            self._close()
        self._tell(Ended(index, result))

    def _end_unwanted(self) -> None:
        """Answers that nobody wants, and nobody computes, end as they are; those whose logits are
        to be hashed are computed again first."""
        for index, one in enumerate(self._answers):
            if one.ended or not one.cancelled or (self.options.digest and one.heard):
                continue
            nothing = hashlib.sha256().hexdigest() if self.options.digest else ""
            result = Result(
                tokens=tuple(one.tokens),
                reason="cancelled",
                logits_digest=nothing,
                timing=Timing(prompt_tokens=len(one.request.tokens)),
            )
            self._end(one, index, result)

    def _timing(self, one: _Answer, last: Timing) -> Timing:
        """By this process's clock: what nodes that are no more knew of it is lost with them."""
        first, end = one.first_at or self._clock(), one.last_at or self._clock()
        decode = max(0.0, end - first)
        known = last.computing + last.sampling + last.drafting
        return replace(
            last,
            waiting=0.0,
            prefill=max(0.0, first - self.began),
            decode=decode,
            between=max(0.0, decode - known),
            prompt_tokens=len(one.request.tokens),
            decode_tokens=max(0, one.heard - 1),
            decode_steps=max(last.decode_steps, one.heard - 1),
        )

    def _rest(self, one: _Answer, proves: bool) -> Request:
        """What is still to be answered of a request."""
        said, params = tuple(one.tokens), one.request.params
        most = params.max_tokens
        if proves:
            most = len(said) + 1 if most is None else min(most, len(said) + 1)
        return replace(one.request, said=said, params=replace(params, max_tokens=most))

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._on_over(self)

    def _tell(self, event: Event) -> None:
        try:
            self._deliver(event)
        except Exception:
            self._close()  # such as an event loop that was closed
            raise


def _is_end(one: _Answer, result: Result) -> bool:
    """Whether an answer that was to stop behind one more token has come to its own end."""
    if one.cancelled or result.reason != "length":
        return True
    most = one.request.params.max_tokens
    return most is not None and len(result.tokens) >= most
