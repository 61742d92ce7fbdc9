"""Answering: asks an engine for answers and gives their events to tasks of an event loop.

Any number of answers at a time. Whoever stops listening has cancelled. Knows no protocols.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Self

from bandweave.generation.request import Request
from bandweave.routing import call
from bandweave.routing.call import Cancel
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.choice import Choice
from bandweave.serving.answers.events import End, Event, Read
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.text.tokenizer import Tokenizer


class Answering:
    """See the module."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer

    def start(self, ask: Ask) -> AnswerStream:
        """Asks, in a running event loop. ``StepError`` where the engine has failed."""
        return AnswerStream(self.engine, self.tokenizer, ask)


class AnswerStream:
    """The events of one ask, for one task: iterate over them. An async context manager: whoever
    leaves it has cancelled what is under way.

    The iteration ends with the last ``End``; it raises the ``StepError`` of an engine that fails,
    and the ``ValueError`` of an ask that cannot be answered.
    """

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer, ask: Ask) -> None:
        self.ask = ask
        self._loop = asyncio.get_running_loop()
        self._heard: deque[call.Event] = deque()  # at most a few for each token of the context
        self._news = asyncio.Event()
        self._choices = [Choice(index, ask, tokenizer) for index in range(ask.choices)]
        self._open = ask.choices
        end_tokens = frozenset(tokenizer.eos_token_ids)
        requests = [
            Request(
                tokens=ask.tokens,
                params=ask.params,
                end_tokens=end_tokens,
                choice=index,
                logprobs=ask.logprobs,
                scored=ask.scored and index == 0,
                grammar=ask.grammar,
                key=ask.key,
                weight=ask.weight,
            )
            for index in range(ask.choices)
        ]
        self._cancel: Cancel = engine.submit(requests, self._deliver, reuse=ask.reuse)

    def cancel(self) -> None:
        """Ends all answers; the iteration ends soon after."""
        self._cancel()

    def _deliver(self, event: call.Event) -> None:
        """From any thread. ``RuntimeError`` once the loop is closed."""
        self._heard.append(event)
        self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._open:
            while not self._heard:
                self._news.clear()
                if not self._heard:
                    await self._news.wait()
            for event in self._events(self._heard.popleft()):
                yield event

    def _events(self, heard: call.Event) -> list[Event]:
        if isinstance(heard, call.Failed):
            raise heard.error
        if isinstance(heard, call.Reading):
            return [Read(max(heard.each, default=heard.tokens))]
        if isinstance(heard, call.Ended):
            self._open -= 1
            return self._choices[heard.index].end(heard.result)
        events: list[Event] = []
        for place, (index, token) in enumerate(heard.tokens):
            choice = self._choices[index]
            if choice.over:
                continue
            events += choice.push(token, heard.logprobs[place] if heard.logprobs else None)
            if choice.over:
                self._cancel(index)
        return events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            self._cancel()


async def gather(stream: AnswerStream) -> tuple[list[Event], list[End]]:
    """All events of an ask, and the end of each of its answers, by choice."""
    events: list[Event] = []
    async with stream:
        async for event in stream:
            events.append(event)
    ends = {event.choice: event for event in events if isinstance(event, End)}
    return events, [ends[index] for index in sorted(ends)]
