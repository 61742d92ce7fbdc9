"""Model: a loaded model for Python programs; ``bandweave.load`` makes one.

Text in, text out, over the engine that the commands use; any number of threads and tasks may ask at
a time, and their answers share the steps. A server is a program that uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any, Self

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End, Event, Text, Thought
from bandweave.serving.session import Session

Prompt = str | Sequence[int]
"""A text, or the ids of its tokens."""
ChatMessage = Mapping[str, Any]
"""``role`` and ``content``, and what else the model's chat template knows."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer. ``finish_reason``: ``"stop"`` (an end token or a stop string), ``"length"``, or
    ``"error"``, which ``error`` explains; ``thoughts``: what a model thought before it spoke;
    ``logprobs``: of each token but one that ended the answer, where they were asked for."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    timing: Timing
    thoughts: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str = ""


class Model:
    """See ``load``. A context manager; ``close`` ends every node.

    ``sampling`` of every method are fields of ``SamplingParams`` (``temperature``, ``top_p``,
    ``max_tokens``, ``stop``, ``seed`` ...); the most likely tokens are chosen, where it says
    nothing. Errors: ``ValueError`` for what makes no sense, ``StepError`` where a node fails.
    """

    def __init__(self, session: Session, resources: ExitStack) -> None:
        """Use ``load``."""
        self._session, self._resources = session, resources
        self._answering = Answering(session.engine, session.tokenizer)

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._session.engine.context

    @property
    def session(self) -> Session:
        """What it is made of: files, tokenizer, template, engine."""
        return self._session

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that the model wants around every text."""
        return self._session.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return self._session.tokenizer.decode(tokens)

    # --- for threads ---

    def generate(
        self, prompt: Prompt, *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """Goes on with a text."""
        return _whole(self._listen(self._text_ask(prompt, logprobs, sampling)))

    def stream(self, prompt: Prompt, **sampling: Any) -> Iterator[str]:
        """As ``generate``, piece by piece. Whoever closes the iterator ends the answer."""
        return _texts(self._listen(self._text_ask(prompt, None, sampling)))

    def chat(
        self, messages: str | Sequence[ChatMessage], *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """Answers a conversation, or one question, as the model's chat template puts it."""
        return _whole(self._listen(self._chat_ask(messages, logprobs, sampling)))

    def chat_stream(self, messages: str | Sequence[ChatMessage], **sampling: Any) -> Iterator[str]:
        """As ``chat``, piece by piece. Whoever closes the iterator ends the answer."""
        return _texts(self._listen(self._chat_ask(messages, None, sampling)))

    # --- for tasks of an event loop ---

    async def agenerate(
        self, prompt: Prompt, *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """As ``generate``. Cancelling the task ends the answer."""
        ask = await asyncio.to_thread(self._text_ask, prompt, logprobs, sampling)
        return await self._awhole(ask)

    async def astream(self, prompt: Prompt, **sampling: Any) -> AsyncIterator[str]:
        """As ``stream``."""
        ask = await asyncio.to_thread(self._text_ask, prompt, None, sampling)
        async for piece in self._atexts(ask):
            yield piece

    async def achat(
        self, messages: str | Sequence[ChatMessage], *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """As ``chat``. Cancelling the task ends the answer."""
        ask = await asyncio.to_thread(self._chat_ask, messages, logprobs, sampling)
        return await self._awhole(ask)

    async def achat_stream(
        self, messages: str | Sequence[ChatMessage], **sampling: Any
    ) -> AsyncIterator[str]:
        """As ``chat_stream``."""
        ask = await asyncio.to_thread(self._chat_ask, messages, None, sampling)
        async for piece in self._atexts(ask):
            yield piece

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how it is asked ---

    def _text_ask(self, prompt: Prompt, logprobs: int | None, sampling: Mapping[str, Any]) -> Ask:
        tokens = self.encode(prompt) if isinstance(prompt, str) else prompt
        return _ask(tokens, logprobs, sampling, goes_on=True)

    def _chat_ask(
        self,
        messages: str | Sequence[ChatMessage],
        logprobs: int | None,
        sampling: Mapping[str, Any],
    ) -> Ask:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return _ask(self._session.encode_chat(messages), logprobs, sampling, goes_on=False)

    def _listen(self, ask: Ask) -> _Asked:
        return _Asked(ask, self._answering.listen(ask))

    async def _awhole(self, ask: Ask) -> Completion:
        parts = _Parts(ask)
        async with self._answering.start(ask) as stream:
            async for event in stream:
                parts.add(event)
        return parts.completion()

    async def _atexts(self, ask: Ask) -> AsyncIterator[str]:
        async with self._answering.start(ask) as stream:
            async for event in stream:
                if isinstance(event, Text) and event.text:
                    yield event.text


@dataclass(frozen=True)
class _Asked:
    ask: Ask
    events: Iterator[Event]


@dataclass
class _Parts:
    """What an answer is made of, as it grows."""

    ask: Ask
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    end: End | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, (Text, Thought)):
            (self.text if isinstance(event, Text) else self.thoughts).append(event.text)
            self.logprobs += [one.logprobs for one in event.tokens if one.logprobs is not None]
        elif isinstance(event, End):
            self.end = event

    def completion(self) -> Completion:
        end = self.end
        assert end is not None
        return Completion(
            text="".join(self.text),
            tokens=end.tokens,
            finish_reason=end.reason,
            prompt_tokens=len(self.ask.tokens),
            cached_tokens=end.cached_tokens,
            timing=end.timing,
            thoughts="".join(self.thoughts),
            logprobs=tuple(self.logprobs),
            error=end.error,
        )


def _whole(asked: _Asked) -> Completion:
    parts = _Parts(asked.ask)
    for event in asked.events:
        parts.add(event)
    return parts.completion()


def _texts(asked: _Asked) -> Iterator[str]:
    for event in asked.events:
        if isinstance(event, Text) and event.text:
            yield event.text


def _ask(
    tokens: Sequence[int], logprobs: int | None, sampling: Mapping[str, Any], *, goes_on: bool
) -> Ask:
    values = {"temperature": 0.0, **sampling}
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    values["stop"] = tuple(values.get("stop") or ())
    try:
        params = SamplingParams(**values)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(SamplingParams))
        raise ValueError(f"{error}; what can be given is {known}") from error
    return Ask(tokens=tuple(tokens), params=params, logprobs=logprobs, goes_on=goes_on)
