"""Answering: asks an engine for answers and gives their events to threads and tasks.

Any number of answers at a time. Whoever stops listening has cancelled. Knows no protocols.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Protocol, Self

from bandweave.nodes.waiting import take
from bandweave.routing import call
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import Event
from bandweave.serving.answers.grammar_keeper import GrammarKeeper
from bandweave.serving.answers.hearing import Hearing
from bandweave.serving.answers.teller import Teller
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.text.tokenizer import Tokenizer

OnBegun = Callable[[bool], None]


class Account(Protocol):
    """Kept of an answer stream, by others."""

    def hear(self, event: Event) -> None:
        """The next event of it, as its task takes it."""
        ...

    def close(self, outcome: str) -> None:
        """Nothing more comes: what has not ended was an ``"error"``, or is ``"cancelled"``. May be
        called more than once; the first says it."""
        ...


class Answering:
    """Both ways to listen raise the ``StepError`` of an engine that fails, and the ``ValueError``
    of an ask that it refuses. ``grammars``: those that the engine can keep to. ``private``: no key
    uses what was computed for another's prompt, so that nobody learns from the time of an answer
    how a prompt of others begins."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer, *, private: bool = False) -> None:
        self.engine, self.tokenizer, self._private = engine, tokenizer, private
        self._teller = Teller()
        self.grammars = GrammarKeeper(engine, tokenizer)

    def start(
        self, ask: Ask, on_begun: OnBegun = lambda heard: None, account: Account | None = None
    ) -> AnswerStream:
        """Asks, for a task of the running event loop, which never waits for the engine: that may be
        in a long step. ``on_begun`` is called in it, once: when the
        engine has come to this ask (True), or nobody wants it any more (False)."""
        own = self._own(ask)
        return AnswerStream(self.engine, self.tokenizer, own, self._teller, on_begun, account)

    def listen(self, ask: Ask) -> Iterator[Event]:
        """Asks, for a thread, and gives the events as they come. Whoever closes the iterator has
        cancelled."""
        heard: queue.SimpleQueue[call.Event] = queue.SimpleQueue()
        hearing = Hearing(self.engine, self.tokenizer, self._own(ask), heard.put)
        try:
            while hearing.open:
                yield from hearing.events(take(heard))
        finally:
            hearing.cancel()

    def _own(self, ask: Ask) -> Ask:
        """With a salt that is its key's own, where keys share nothing."""
        return replace(ask, salt=f"{len(ask.key)} {ask.key} {ask.salt}") if self._private else ask


class AnswerStream:
    """The events of one ask, for one task: iterate over them, up to the last ``End``. An async
    context manager: whoever leaves it has cancelled what is under way."""

    def __init__(
        self,
        engine: TokenEngine,
        tokenizer: Tokenizer,
        ask: Ask,
        teller: Teller,
        on_begun: OnBegun = lambda heard: None,
        account: Account | None = None,
    ) -> None:
        self.ask, self._teller, self._account = ask, teller, account
        self._on_begun, self._begun, self._closed = on_begun, False, False
        self._loop = asyncio.get_running_loop()
        self._heard: deque[call.Event] = deque()  # at most a few for each token of the context
        self._news = asyncio.Event()
        self._hearing = Hearing(engine, tokenizer, ask, self._deliver, self._tell)

    def cancel(self) -> None:
        """Ends all answers; the iteration ends soon after."""
        self._hearing.cancel()

    def fail(self, error: Exception) -> None:
        """Ends all answers; the iteration raises the error at once, whatever it has not taken."""
        if not self._closed and self._hearing.open:
            self._heard.clear()
            self._begin(False)
            self._arrive(call.Failed(error))
            self._close("error")

    def close(self) -> None:
        """Cancels what is under way; nobody iterates any more. May be called more than once."""
        self._close("cancelled")

    def _close(self, outcome: str) -> None:
        if not self._closed:
            self._closed = True
            self._begin(False)
            self._hearing.abandon()
            if self._account is not None:
                self._account.close(outcome)

    def _tell(self, work: Callable[[], None]) -> None:
        self._teller.tell(work, lambda error: self._deliver(call.Failed(error)))

    def _deliver(self, event: call.Event) -> None:
        """From any thread. ``RuntimeError`` once the loop is closed."""
        self._loop.call_soon_threadsafe(self._arrive, event)

    def _arrive(self, event: call.Event) -> None:
        if self._closed:
            return
        if not isinstance(event, call.Reading):
            self._begin(True)
        self._heard.append(event)
        self._news.set()

    def _begin(self, heard: bool) -> None:
        if not self._begun:
            self._begun = True
            self._on_begun(heard)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._hearing.open:
            while not self._heard:
                self._news.clear()
                await self._news.wait()
            try:
                events = self._hearing.events(self._heard.popleft())
            except Exception:
                self._close("error")
                raise
            for event in events:
                if self._account is not None:
                    self._account.hear(event)
                yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
