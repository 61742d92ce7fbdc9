"""Hearing: what an engine says of one ask, to the events of its answers. Knows no threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bandweave.generation.request import CallOptions, Request
from bandweave.routing import call
from bandweave.routing.call import Cancel, Deliver
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.choice import Choice
from bandweave.serving.answers.events import Event, Read
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.text.tokenizer import Tokenizer

Run = Callable[[Callable[[], None]], None]


class Hearing:
    """Asks, by a task of ``run``: ``deliver`` hears of it in a thread of the engine's. ``open``:
    answers that have not ended. ``StepError`` where the engine has failed.

    ``run`` does what it is given at once, or elsewhere, one after the other: an engine takes what
    it is told when its step at hand has ended, and who tells it much waits for that.
    """

    def __init__(
        self,
        engine: TokenEngine,
        tokenizer: Tokenizer,
        ask: Ask,
        deliver: Deliver,
        run: Run = lambda work: work(),
    ) -> None:
        self.ask, self.open = ask, ask.choices
        self._engine, self._deliver, self._run = engine, deliver, run
        self._choices = [Choice(index, ask, tokenizer) for index in range(ask.choices)]
        self._requests = _requests(ask, frozenset(tokenizer.eos_token_ids))
        self._unwanted = False
        self._cancel: Cancel | None = None
        run(self._submit)

    def _submit(self) -> None:
        if not self._unwanted:  # before the engine has heard of it
            options = CallOptions(reuse=self.ask.reuse)
            self._cancel = self._engine.submit(self._requests, self._deliver, options)

    def cancel(self) -> None:
        """Ends all answers that have not ended."""
        if self.open:
            self._run(self._end)

    def abandon(self) -> None:
        """The same, where nobody wants to hear of their ends."""
        self._unwanted = True
        self.cancel()

    def _end(self, index: int | None = None) -> None:
        if self._cancel is not None:
            self._cancel(index)

    def events(self, heard: call.Event) -> list[Event]:
        """What is to be told of an event of the engine's. Raises what ended it all: the
        ``StepError`` of an engine that fails, the ``ValueError`` of an ask that it refuses."""
        if isinstance(heard, call.Failed):
            self.open = 0
            raise heard.error
        if isinstance(heard, call.Reading):
            return [Read(max(heard.each, default=heard.tokens))]
        if isinstance(heard, call.Ended):
            self.open -= 1
            return self._choices[heard.index].end(heard.result)
        events: list[Event] = []
        for place, (index, token) in enumerate(heard.tokens):
            choice = self._choices[index]
            if choice.over:
                continue
            events += choice.push(token, heard.logprobs[place] if heard.logprobs else None)
            if choice.over:
                self._run(partial(self._end, index))
        return events


def _requests(ask: Ask, end_tokens: frozenset[int]) -> list[Request]:
    return [
        Request(
            tokens=ask.tokens,
            params=ask.params,
            end_tokens=frozenset() if ask.ignores_end else end_tokens,
            choice=index,
            logprobs=ask.logprobs,
            scored=ask.scored and index == 0,
            embeds=ask.embeds,
            grammar=ask.grammar,
            key=ask.key,
            weight=ask.weight,
            salt=ask.salt,
        )
        for index in range(ask.choices)
    ]
