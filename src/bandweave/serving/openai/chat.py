"""``/v1/chat/completions``: the request's fields, and the shapes of its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.conversation import prepare
from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Event,
    Read,
    Text,
    Thought,
    TokenInfo,
)
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.thought_budget import with_budget
from bandweave.serving.errors import bad, failed, unavailable
from bandweave.serving.event_lines import data_event
from bandweave.serving.fields import Fields
from bandweave.serving.identifiers import new_id
from bandweave.serving.logprobs import chat_logprobs
from bandweave.serving.openai.foreign import read_salt, refuse_foreign
from bandweave.serving.openai.messages import read_conversation
from bandweave.serving.openai.streaming import read_streaming
from bandweave.serving.openai.usage import usage_of
from bandweave.serving.sampling import is_endless, read_sampling

MOST_CHOICES = 128
_MOST_LOGPROBS = 20
_BUDGET = "thinking_token_budget"  # vLLM's name


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A request that can be asked. ``tells_thoughts``: in fields of their own. ``older``: by the
    fields for functions that tools replaced; its answer has their shape."""

    ask: Ask
    streams: bool
    tells_usage: bool
    logprobs: bool
    tells_thoughts: bool = True
    older: bool = False


async def read_chat(fields: Fields, served: Served, key: str, weight: float) -> ChatRequest:
    """``ApiError`` for what cannot be asked."""
    served.check_name(fields.text("model", served.name))
    _refuse(fields, served)
    streams, tells_usage = read_streaming(fields)
    conversation = read_conversation(fields)
    older = bool(conversation.tools) and not fields.has("tools")
    if older:  # their shape has room for one call
        conversation = replace(conversation, parallel=False)
    prepared = await prepare(served, conversation)
    grammar = prepared.grammar
    if fields.has(_BUDGET):
        most = fields.integer(_BUDGET, None, 0, (1 << 31) - 1)
        grammar = await with_budget(served, prepared, most, _BUDGET)
    limit = None
    for name in ("max_tokens", "max_completion_tokens"):
        if is_endless(fields, name):
            limit = None
        elif fields.has(name):
            limit = fields.integer(name, None, 1, (1 << 31) - 1)
    logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, 0, _MOST_LOGPROBS)
    if top and not logprobs:
        raise bad("top_logprobs is for logprobs; set logprobs to true", "top_logprobs")
    return ChatRequest(
        ask=Ask(
            tokens=prepared.tokens,
            params=read_sampling(fields, served, limit=limit),
            choices=fields.integer("n", 1, 1, MOST_CHOICES),
            logprobs=top if logprobs else None,
            grammar=grammar,
            syntax=prepared.syntax,
            goes_on=prepared.goes_on,
            key=key,
            weight=weight,
            reuse=fields.flag("cache_prompt", True),
            salt=read_salt(fields),
            ignores_end=fields.flag("ignore_eos"),
        ),
        streams=streams,
        tells_usage=tells_usage,
        logprobs=logprobs,
        tells_thoughts=fields.flag("include_reasoning", True),
        older=older,
    )


def _refuse(fields: Fields, served: Served) -> None:
    """What OpenAI knows and this server does not."""
    fields.refuse("audio")
    fields.refuse("modalities", ["text"])
    fields.refuse("store", False, why="answers are not kept here")
    fields.refuse("prediction")
    fields.refuse("web_search_options")
    fields.refuse("moderation")
    fields.refuse("verbosity", "medium", why="say in the messages how long answers shall be")
    fields.refuse("prompt_cache_retention", "in_memory", why="the cache is in memory")
    told = " and ".join(served.thought_fields)
    fields.refuse("reasoning_format", "auto", "deepseek", why=f"thoughts come as {told}")
    refuse_foreign(fields)


class ChatAnswer:
    """The shapes of one request's answer. ``id`` is that of all its chunks."""

    def __init__(self, request: ChatRequest, served: Served) -> None:
        self._request, self._served = request, served
        self.id = new_id("chatcmpl")

    def _frame(self, kind: str) -> dict[str, Any]:
        served = self._served
        return {
            "id": self.id,
            "object": kind,
            "created": int(served.clock()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    # --- in one piece ---

    async def whole(self, stream: AnswerStream) -> dict[str, Any]:
        """The object of an answer that is not streamed."""
        parts = [_Parts() for _ in range(stream.ask.choices)]
        async with stream:
            async for event in stream:
                if not isinstance(event, Read):
                    parts[event.choice].add(event)
        ends = [one.end for one in parts if one.end is not None]
        for end in ends:
            check_ended_well(end)
        return {
            **self._frame("chat.completion"),
            "choices": [self._choice(index, one) for index, one in enumerate(parts)],
            "usage": usage_of(stream.ask, ends),
        }

    def _choice(self, index: int, parts: _Parts) -> dict[str, Any]:
        assert parts.end is not None
        message: dict[str, Any] = {"role": "assistant", "content": "".join(parts.text) or None}
        if not parts.calls:
            message["content"] = "".join(parts.text)
        message["refusal"] = None
        thoughts = "".join(parts.thoughts)
        if thoughts and self._request.tells_thoughts:
            message.update(dict.fromkeys(self._served.thought_fields, thoughts))
        calls = [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": "".join(parts.arguments[call.call])}}
            for call in parts.calls
        ]  # fmt: skip
        if calls and self._request.older:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        logprobs = chat_logprobs(parts.tokens, self._served) if self._request.logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._reason(parts.end),
        }

    def _reason(self, end: End) -> str:
        older = self._request.older and end.reason == "tool_calls"
        return "function_call" if older else end.reason

    # --- in pieces ---

    async def pieces(self, stream: AnswerStream) -> AsyncIterator[bytes]:
        """The events of a stream; those that are ready together in one piece."""
        frame = self._frame("chat.completion.chunk")
        begun: set[int] = set()
        ends: list[End] = []
        thoughts = self._served.thought_fields
        usage = {"usage": None} if self._request.tells_usage else {}

        def chunk(choice: int, delta: dict[str, Any], reason: str | None = None,
                  tokens: tuple[TokenInfo, ...] = ()) -> bytes:  # fmt: skip
            logprobs = None
            if self._request.logprobs and tokens:
                logprobs = chat_logprobs(tokens, self._served)
            one = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            return data_event({**frame, "choices": [one], **usage})

        async with stream:
            async for event in stream:
                if isinstance(event, Read):
                    continue
                piece = b""
                if event.choice not in begun:
                    begun.add(event.choice)
                    piece = chunk(event.choice, {"role": "assistant", "content": None})
                if isinstance(event, End):
                    ends.append(event)
                    check_ended_well(event)
                    piece += chunk(event.choice, {}, self._reason(event))
                elif isinstance(event, Thought) and not self._request.tells_thoughts:
                    pass
                elif delta := delta_of(event, thoughts, older=self._request.older):
                    piece += chunk(event.choice, delta, tokens=tokens_of(event))
                elif self._request.logprobs and tokens_of(event):
                    piece += chunk(event.choice, {"content": ""}, tokens=tokens_of(event))
                if piece:
                    yield piece
        if self._request.tells_usage:
            yield data_event({**frame, "choices": [], "usage": usage_of(stream.ask, ends)})
        yield b"data: [DONE]\n\n"


class _Parts:
    """What one answer consists of."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[CallBegun] = []
        self.arguments: dict[int, list[str]] = {}
        self.tokens: list[TokenInfo] = []
        self.end: End | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Text):
            self.text.append(event.text)
        elif isinstance(event, Thought):
            self.thoughts.append(event.text)
        elif isinstance(event, CallBegun):
            self.calls.append(event)
            self.arguments[event.call] = []
        elif isinstance(event, CallArguments):
            self.arguments[event.call].append(event.text)
        elif isinstance(event, End):
            self.end = event
        self.tokens += tokens_of(event)


def delta_of(event: Event, thoughts: Sequence[str], *, older: bool) -> dict[str, Any]:
    """What a chunk adds; empty where nothing is to be told. ``thoughts``: the fields for them.
    ``older``: calls in the shape that tools replaced."""
    if isinstance(event, Text):
        return {"content": event.text} if event.text else {}
    if isinstance(event, Thought):
        return dict.fromkeys(thoughts, event.text) if event.text else {}
    if isinstance(event, CallBegun):
        function = {"name": event.name, "arguments": ""}
        if older:
            return {"function_call": function}
        return {"tool_calls": [{"index": event.call, "id": event.id, "type": "function",
                                "function": function}]}  # fmt: skip
    if isinstance(event, CallArguments) and event.text:
        if older:
            return {"function_call": {"arguments": event.text}}
        return {"tool_calls": [{"index": event.call, "function": {"arguments": event.text}}]}
    return {}


def tokens_of(event: Event) -> tuple[TokenInfo, ...]:
    """Those of what is said: thoughts have no log-probabilities in this shape."""
    return event.tokens if isinstance(event, Text) else ()


def check_ended_well(end: End) -> None:
    """``ApiError`` for an answer that did not: the closed list of reasons has no word for it."""
    if end.reason == "error":
        raise failed(end.error or "the model's numbers are not finite")
    if end.reason == "cancelled":
        raise unavailable("the answer was cancelled", 1.0)
