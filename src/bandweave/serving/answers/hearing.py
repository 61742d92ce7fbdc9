"""Hearing: what an engine says of one ask, to the events of its answers. Knows no threads."""

from __future__ import annotations

from bandweave.generation.request import Request
from bandweave.routing import call
from bandweave.routing.call import Deliver
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.choice import Choice
from bandweave.serving.answers.events import Event, Read
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.text.tokenizer import Tokenizer


class Hearing:
    """Asks at once: ``deliver`` hears of it in a thread of the engine's. ``open``: answers that
    have not ended. ``StepError`` where the engine has failed."""

    def __init__(
        self, engine: TokenEngine, tokenizer: Tokenizer, ask: Ask, deliver: Deliver
    ) -> None:
        self.ask, self.open = ask, ask.choices
        self._choices = [Choice(index, ask, tokenizer) for index in range(ask.choices)]
        self._cancel = engine.submit(
            _requests(ask, frozenset(tokenizer.eos_token_ids)), deliver, reuse=ask.reuse
        )

    def cancel(self) -> None:
        """Ends all answers that have not ended."""
        if self.open:
            self._cancel()

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
                self._cancel(index)
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
        )
        for index in range(ask.choices)
    ]
