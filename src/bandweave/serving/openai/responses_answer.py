"""``/v1/responses``: the shapes of an answer, whole and in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.blocks import Block, Blocks, Change, Closed, Grown, Opened
from bandweave.serving.answers.events import End, TokenInfo
from bandweave.serving.answers.served import Served
from bandweave.serving.arguments import read_arguments
from bandweave.serving.errors import ApiError
from bandweave.serving.event_lines import named_event
from bandweave.serving.identifiers import new_id
from bandweave.serving.logprobs import chat_logprobs
from bandweave.serving.openai.responses_input import CUSTOM_INPUT
from bandweave.serving.openai.responses_request import ResponsesRequest
from bandweave.serving.openai.responses_tools import Origin
from bandweave.serving.openai.thoughts import sealed

_PREFIXES = {"thought": "rs", "text": "msg", "call": "fc"}
Told = dict[str, Any]


class ResponseAnswer:
    """The shapes of one request's answer. ``id`` is that of the response."""

    def __init__(self, request: ResponsesRequest, served: Served) -> None:
        self._request, self._served = request, served
        self.id = new_id("resp", "_")
        self._created = int(served.clock())
        self._blocks = Blocks()
        self._ids: list[str] = []  # of the items, by their index
        self._sequence = 0

    async def whole(self, stream: AnswerStream) -> Told:
        """The object of an answer that is not streamed. ``ApiError`` where the model's own numbers
        ended it."""
        last: Told = {}
        async for events in self._events(stream):
            last = events[-1]
        return last["response"]

    async def pieces(self, stream: AnswerStream) -> AsyncIterator[bytes]:
        """The events of a stream; those that are ready together in one piece."""
        async for events in self._events(stream):
            yield b"".join(map(named_event, events))

    def failure(self, error: ApiError) -> bytes:
        """The last event of a stream that failed."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        response = self._response("failed", error={"code": code, "message": error.message})
        return named_event(self._event("response.failed", response=response))

    async def _events(self, stream: AnswerStream) -> AsyncIterator[list[Told]]:
        async with stream:
            told = [
                self._event("response.created", response=self._response("in_progress")),
                self._event("response.in_progress", response=self._response("in_progress")),
            ]
            async for event in stream:
                for change in self._blocks.push(event):
                    told += self._told(change)
                if told:
                    yield told
                    told = []
        end = self._blocks.ended()
        status = "incomplete" if end.reason == "length" else "completed"
        response = self._response(status, usage=responses_usage(stream.ask, end))
        yield [self._event(f"response.{status}", response=response)]

    def _event(self, kind: str, **fields: Any) -> Told:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _response(self, status: str, **fields: Any) -> Told:
        cut = status == "incomplete"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(self._served.clock()) if status == "completed" else None,
            "status": status,
            "model": self._served.name,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(block) for block in self._blocks.all[: len(self._ids)]],
            "usage": None,
            **self._request.told,
            **fields,
        }

    # --- items ---

    def _item(self, block: Block, *, begun: bool = False) -> Told:
        """An item of the output; ``begun``: as it is when nothing of it has come."""
        last = block is self._blocks.all[-1]
        end = self._blocks.end
        cut = last and end is not None and end.reason == "length"
        open = begun or (last and end is None)
        status = "in_progress" if open else "incomplete" if cut else "completed"
        item: Told = {"id": self._ids[block.index]}
        if block.kind == "text":
            content = [] if begun else [self._part(block)]
            return item | {"type": "message", "role": "assistant", "status": status,
                           "content": content}  # fmt: skip
        if block.kind == "thought":
            return item | self._reasoning("" if begun else block.text) | {"status": status}
        origin = self._origin(block)
        item |= {"call_id": block.id, "name": origin.name}
        if origin.namespace:
            item["namespace"] = origin.namespace
        if origin.custom:
            return item | {"type": "custom_tool_call", "input": "" if begun else _input(block)}
        arguments = "" if begun else block.text
        return item | {"type": "function_call", "status": status, "arguments": arguments}

    def _origin(self, block: Block) -> Origin:
        """Whom a call calls."""
        return self._request.origins.get(block.name) or Origin(name=block.name)

    def _reasoning(self, thought: str) -> Told:
        item: Told = {"type": "reasoning", "summary": []}
        if not thought:
            pass
        elif self._request.summarises:
            item["summary"] = [{"type": "summary_text", "text": thought}]
        else:
            item["content"] = [{"type": "reasoning_text", "text": thought}]
        if self._request.seals:
            item["encrypted_content"] = sealed(thought)
        return item

    def _part(self, block: Block) -> Told:
        return {"type": "output_text", "text": block.text, "annotations": [],
                "logprobs": self._logprobs(block.tokens)}  # fmt: skip

    def _logprobs(self, tokens: list[TokenInfo] | tuple[TokenInfo, ...]) -> list[Told]:
        if not self._request.logprobs:
            return []
        return chat_logprobs(tokens, self._served)["content"]

    # --- events of items ---

    def _told(self, change: Change) -> list[Told]:
        block = change.block
        if isinstance(change, Opened):
            self._ids.append(new_id(self._prefix(block), "_"))
        place = {"item_id": self._ids[block.index], "output_index": block.index}
        if block.kind == "text":
            return self._of_text(change, place)
        if block.kind == "thought":
            return self._of_thought(change, place)
        return self._of_call(change, place)

    def _prefix(self, block: Block) -> str:
        custom = block.kind == "call" and self._origin(block).custom
        return "ctc" if custom else _PREFIXES[block.kind]

    def _added(self, block: Block) -> Told:
        item = self._item(block, begun=True)
        return self._event("response.output_item.added", output_index=block.index, item=item)

    def _done(self, block: Block) -> Told:
        return self._event(
            "response.output_item.done", output_index=block.index, item=self._item(block)
        )

    def _of_text(self, change: Change, place: Told) -> list[Told]:
        block, place = change.block, {**place, "content_index": 0}
        if isinstance(change, Opened):
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            return [self._added(block),
                    self._event("response.content_part.added", **place, part=part)]  # fmt: skip
        if isinstance(change, Grown):
            logprobs = self._logprobs(change.tokens)
            if not change.text and not logprobs:
                return []
            return [self._event("response.output_text.delta", **place, delta=change.text,
                                logprobs=logprobs)]  # fmt: skip
        part = self._part(block)
        return [
            self._event("response.output_text.done", **place, text=part["text"],
                        logprobs=part["logprobs"]),
            self._event("response.content_part.done", **place, part=part),
            self._done(block),
        ]  # fmt: skip

    def _of_thought(self, change: Change, place: Told) -> list[Told]:
        if self._request.summarises:
            place, text = {**place, "summary_index": 0}, "response.reasoning_summary_text"
            part, kind = "response.reasoning_summary_part", "summary_text"
        else:
            place, text = {**place, "content_index": 0}, "response.reasoning_text"
            part, kind = "response.content_part", "reasoning_text"
        if isinstance(change, Opened):
            empty = {"type": kind, "text": ""}
            return [self._added(change.block), self._event(f"{part}.added", **place, part=empty)]
        if isinstance(change, Grown):
            if not change.text:
                return []
            return [self._event(f"{text}.delta", **place, delta=change.text)]
        whole = change.block.text
        return [
            self._event(f"{text}.done", **place, text=whole),
            self._event(f"{part}.done", **place, part={"type": kind, "text": whole}),
            self._done(change.block),
        ]

    def _of_call(self, change: Change, place: Told) -> list[Told]:
        block = change.block
        origin = self._origin(block)
        if isinstance(change, Opened):
            return [self._added(block)]
        if isinstance(change, Closed) and origin.custom:
            # An input is known when the JSON around it is whole.
            kind, text = "response.custom_tool_call_input", _input(block)
            delta = self._event(f"{kind}.delta", **place, delta=text)
            return [delta, self._event(f"{kind}.done", **place, input=text), self._done(block)]
        kind = "response.function_call_arguments"
        if isinstance(change, Closed):
            done = self._event(f"{kind}.done", **place, name=origin.name, arguments=block.text)
            return [done, self._done(block)]
        return [] if origin.custom else [self._event(f"{kind}.delta", **place, delta=change.text)]


def responses_usage(ask: Ask, end: End) -> Told:
    return {
        "input_tokens": len(ask.tokens),
        "input_tokens_details": {"cached_tokens": end.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": len(end.tokens),
        "output_tokens_details": {"reasoning_tokens": end.thought_tokens},
        "total_tokens": len(ask.tokens) + len(end.tokens),
    }


def _input(block: Block) -> str:
    value = read_arguments(block.text).get(CUSTOM_INPUT, "")
    return value if isinstance(value, str) else ""
