"""``/api/chat`` and ``/api/generate``: the shapes of an answer, whole and in lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.blocks import Block, Blocks, Change, Closed, Grown
from bandweave.serving.answers.events import TokenInfo
from bandweave.serving.answers.served import Served
from bandweave.serving.arguments import read_arguments
from bandweave.serving.event_lines import json_line
from bandweave.serving.logprobs import chat_logprobs
from bandweave.serving.ollama.request import OllamaRequest


class OllamaAnswer:
    """The shapes of one request's answer."""

    def __init__(self, request: OllamaRequest, served: Served) -> None:
        self._request, self._served = request, served

    async def whole(self, stream: AnswerStream) -> dict[str, Any]:
        """The object of an answer that is not streamed. ``ApiError`` where the model's own numbers
        ended it."""
        blocks = Blocks()
        async with stream:
            async for event in stream:
                blocks.push(event)
        said = "".join(block.text for block in blocks.all if block.kind == "text")
        thought = "".join(block.text for block in blocks.all if block.kind == "thought")
        calls = [block for block in blocks.all if block.kind == "call"]
        told = [_call(number, block) for number, block in enumerate(calls)]
        tokens = [token for block in blocks.all if block.kind == "text" for token in block.tokens]
        return self._frame(said, thought, told, tokens) | self._last(stream, blocks)

    async def lines(self, stream: AnswerStream) -> AsyncIterator[bytes]:
        """The lines of a stream; those that are ready together in one piece."""
        blocks = Blocks()
        async with stream:
            async for event in stream:
                piece = b"".join(self._line(blocks, change) for change in blocks.push(event))
                if piece:
                    yield piece
        yield json_line(self._frame("") | self._last(stream, blocks))

    def nothing(self) -> dict[str, Any]:
        """What is said where nothing is asked: the model is there."""
        return self._frame("") | {"done": True, "done_reason": "load"}

    def _line(self, blocks: Blocks, change: Change) -> bytes:
        block = change.block
        if isinstance(change, Closed) and block.kind == "call":
            number = sum(one.kind == "call" for one in blocks.all[: block.index])
            return json_line(self._frame("", calls=[_call(number, block)]))
        if not isinstance(change, Grown) or block.kind == "call":
            return b""
        if block.kind == "thought":
            return json_line(self._frame("", change.text)) if change.text else b""
        tokens = change.tokens if self._request.logprobs else ()
        if not change.text and not tokens:
            return b""
        return json_line(self._frame(change.text, tokens=tokens))

    def _frame(
        self,
        text: str,
        thought: str = "",
        calls: Sequence[dict[str, Any]] = (),
        tokens: Sequence[TokenInfo] = (),
    ) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._served.clock(), UTC)
        frame: dict[str, Any] = {
            "model": self._served.name,
            "created_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        said: dict[str, Any] = {"thinking": thought} if thought else {}
        if calls:
            said["tool_calls"] = list(calls)
        if self._request.chats:
            frame["message"] = {"role": "assistant", "content": text, **said}
        else:
            frame |= {"response": text, **said}
        frame["done"] = False
        if self._request.logprobs and tokens:
            frame["logprobs"] = chat_logprobs(tokens, self._served)["content"]
        return frame

    def _last(self, stream: AnswerStream, blocks: Blocks) -> dict[str, Any]:
        end = blocks.ended()
        timing = end.timing
        seconds = timing.waiting + timing.prefill + timing.decode
        return {
            "done": True,
            "done_reason": "length" if end.reason == "length" else "stop",
            "total_duration": nanoseconds(seconds),
            "load_duration": 0,  # it was loaded when the server began
            "prompt_eval_count": len(stream.ask.tokens),
            "prompt_eval_duration": nanoseconds(timing.prefill),
            "eval_count": len(end.tokens),
            "eval_duration": nanoseconds(timing.decode),
        }


def nanoseconds(seconds: float) -> int:
    """As Ollama's API gives durations."""
    return int(seconds * 1_000_000_000)


def _call(number: int, block: Block) -> dict[str, Any]:
    function = {"index": number, "name": block.name, "arguments": read_arguments(block.text)}
    return {"id": block.id, "function": function}
