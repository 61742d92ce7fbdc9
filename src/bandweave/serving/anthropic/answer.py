"""``/v1/messages``: the shapes of an answer, whole and in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.blocks import Block, Blocks, Change, Closed, Opened
from bandweave.serving.answers.events import End
from bandweave.serving.answers.served import Served
from bandweave.serving.anthropic.request import MessagesRequest
from bandweave.serving.anthropic.signature import sign
from bandweave.serving.arguments import read_arguments
from bandweave.serving.event_lines import named_event
from bandweave.serving.identifiers import new_id

PING = named_event({"type": "ping"})


class MessageAnswer:
    """The shapes of one request's answer."""

    def __init__(self, request: MessagesRequest, served: Served) -> None:
        self._request, self._served = request, served
        self.id = new_id("msg", "_")

    async def whole(self, stream: AnswerStream) -> dict[str, Any]:
        """The object of an answer that is not streamed. ``ApiError`` where the model's own numbers
        ended it."""
        blocks = Blocks()
        async with stream:
            async for event in stream:
                blocks.push(event)
        end = blocks.ended()
        content = [self._content(block) for block in blocks.all]
        return {
            **self._message(content, usage_of(stream.ask, end)),
            "stop_reason": self._stop_reason(stream.ask, end),
            "stop_sequence": end.stop,
        }

    async def pieces(self, stream: AnswerStream) -> AsyncIterator[bytes]:
        """The events of a stream; those that are ready together in one piece."""
        blocks = Blocks()
        async with stream:
            # Before the first token nobody knows how much of the prompt is in the cache.
            start = self._message([], usage_of(stream.ask, None))
            piece = named_event({"type": "message_start", "message": start})
            async for event in stream:
                piece += b"".join(self._told(change) for change in blocks.push(event))
                if piece:
                    yield piece
                    piece = b""
        end = blocks.ended()
        delta = {
            "stop_reason": self._stop_reason(stream.ask, end),
            "stop_sequence": end.stop,
        }
        yield named_event(
            {"type": "message_delta", "delta": delta, "usage": usage_of(stream.ask, end)}
        ) + named_event({"type": "message_stop"})

    def _message(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._served.name,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _content(self, block: Block) -> dict[str, Any]:
        if block.kind == "text":
            return {"type": "text", "text": block.text}
        if block.kind == "call":
            return {"type": "tool_use", "id": block.id, "name": block.name,
                    "input": read_arguments(block.text)}  # fmt: skip
        omits = self._request.omits
        return {"type": "thinking", "thinking": "" if omits else block.text,
                "signature": sign(block.text, omitted=omits)}  # fmt: skip

    def _told(self, change: Change) -> bytes:
        block = change.block
        if isinstance(change, Opened):
            begun = {
                "text": {"type": "text", "text": ""},
                "thought": {"type": "thinking", "thinking": "", "signature": ""},
                "call": {"type": "tool_use", "id": block.id, "name": block.name, "input": {}},
            }[block.kind]
            return _event("content_block_start", block, content_block=begun)
        if isinstance(change, Closed):
            stop = _event("content_block_stop", block)
            if block.kind != "thought":
                return stop
            signature = sign(block.text, omitted=self._request.omits)
            delta = {"type": "signature_delta", "signature": signature}
            return _event("content_block_delta", block, delta=delta) + stop
        if not change.text or (block.kind == "thought" and self._request.omits):
            return b""
        delta = {
            "text": {"type": "text_delta", "text": change.text},
            "thought": {"type": "thinking_delta", "thinking": change.text},
            "call": {"type": "input_json_delta", "partial_json": change.text},
        }[block.kind]
        return _event("content_block_delta", block, delta=delta)

    def _stop_reason(self, ask: Ask, end: End) -> str:
        if end.reason == "tool_calls":
            return "tool_use"
        if end.reason == "length":
            limit = ask.params.max_tokens or 0
            cut = len(end.tokens) < limit and (
                len(ask.tokens) + len(end.tokens) >= self._served.context
            )
            return "model_context_window_exceeded" if cut else "max_tokens"
        return "stop_sequence" if end.stop is not None else "end_turn"


def usage_of(ask: Ask, end: End | None) -> dict[str, Any]:
    """Anthropic counts tokens that came from the cache apart from the rest of the prompt."""
    cached = end.cached_tokens if end else 0
    return {
        "input_tokens": len(ask.tokens) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": len(end.tokens) if end else 0,
        "output_tokens_details": {"thinking_tokens": end.thought_tokens if end else 0},
    }


def _event(kind: str, block: Block, **fields: Any) -> bytes:
    return named_event({"type": kind, "index": block.index, **fields})
