"""Answering: asks an engine for answers and gives their events to threads and tasks.

Any number of answers at a time. Whoever stops listening has cancelled. Knows no protocols.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Self

from bandweave.nodes.waiting import take
from bandweave.routing import call
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import Event
from bandweave.serving.answers.grammar_keeper import GrammarKeeper
from bandweave.serving.answers.hearing import Hearing
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.text.tokenizer import Tokenizer


class Answering:
    """Both ways to listen raise the ``StepError`` of an engine that fails, and the ``ValueError``
    of an ask that it refuses. ``grammars``: those that the engine can keep to."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.grammars = GrammarKeeper(engine, tokenizer)

    def start(self, ask: Ask) -> AnswerStream:
        """Asks, for a task of the running event loop."""
        return AnswerStream(self.engine, self.tokenizer, ask)

    def listen(self, ask: Ask) -> Iterator[Event]:
        """Asks, for a thread, and gives the events as they come. Whoever closes the iterator has
        cancelled."""
        heard: queue.SimpleQueue[call.Event] = queue.SimpleQueue()
        hearing = Hearing(self.engine, self.tokenizer, ask, heard.put)
        try:
            while hearing.open:
                yield from hearing.events(take(heard))
        finally:
            hearing.cancel()


class AnswerStream:
    """The events of one ask, for one task: iterate over them, up to the last ``End``. An async
    context manager: whoever leaves it has cancelled what is under way."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer, ask: Ask) -> None:
        self.ask = ask
        self._loop = asyncio.get_running_loop()
        self._heard: deque[call.Event] = deque()  # at most a few for each token of the context
        self._news = asyncio.Event()
        self._hearing = Hearing(engine, tokenizer, ask, self._deliver)

    def cancel(self) -> None:
        """Ends all answers; the iteration ends soon after."""
        self._hearing.cancel()

    def _deliver(self, event: call.Event) -> None:
        """From any thread. ``RuntimeError`` once the loop is closed."""
        self._heard.append(event)
        self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._hearing.open:
            while not self._heard:
                self._news.clear()
                if not self._heard:
                    await self._news.wait()
            for event in self._hearing.events(self._heard.popleft()):
                yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hearing.cancel()
