"""The shapes of ``/v1/completions``'s answers, in one piece and in pieces."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Sequence
from typing import Any

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.events import End, Event, Text, Thought, TokenInfo
from bandweave.serving.answers.merging import merged
from bandweave.serving.answers.served import Served
from bandweave.serving.event_lines import data_event
from bandweave.serving.identifiers import new_id
from bandweave.serving.openai.chat import check_ended_well
from bandweave.serving.openai.completions import CompletionRequest
from bandweave.serving.openai.usage import usage_of


class CompletionAnswer:
    """The shapes of one request's answers. ``id`` is that of all its chunks."""

    def __init__(self, request: CompletionRequest, served: Served) -> None:
        self._request, self._served = request, served
        self._frame = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(served.clock()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    # --- in one piece ---

    async def whole(self, streams: Sequence[AnswerStream]) -> dict[str, Any]:
        """The object of an answer that is not streamed."""
        parts = [[_Parts() for _ in range(stream.ask.choices)] for stream in streams]
        async for prompt, event in merged(streams):
            if isinstance(event, (Text, Thought, End)):
                parts[prompt][event.choice].add(event)
        choices = []
        for prompt, answers in enumerate(parts):
            scores = answers[0].end.prompt_logprobs if answers[0].end else ()
            for one in answers:
                choices.append(self._choice(len(choices), prompt, one, scores))
        ends = [[one.end for one in answers if one.end] for answers in parts]
        return {**self._frame, "choices": choices, "usage": self._usage(ends)}

    def _choice(
        self, index: int, prompt: int, parts: _Parts, scores: Sequence[TokenLogprobs]
    ) -> dict[str, Any]:
        request = self._request
        before = request.prompts[prompt] if request.echoes else ""
        answer = "".join(parts.text) if request.wanted else ""
        tokens = parts.tokens if request.wanted else []
        logprobs = None
        if request.logprobs is not None:
            told = self._told(prompt, scores) if request.echoes else []
            logprobs = _Logprobs(self._served).told([*told, *tokens])
        assert parts.end is not None
        reason = parts.end.reason if request.wanted else "length"
        return {
            "text": before + answer,
            "index": index,
            "logprobs": logprobs,
            "finish_reason": reason,
        }

    def _told(self, prompt: int, scores: Sequence[TokenLogprobs]) -> list[TokenInfo]:
        """The prompt's tokens; the first was chosen by nobody."""
        tokens, text = self._request.asks[prompt].tokens, self._served.tokenizer.text_bytes
        known: list[TokenLogprobs | None] = [None, *scores]
        known += [None] * (len(tokens) - len(known))
        return [
            TokenInfo(token, text(token), found) for token, found in zip(tokens, known, strict=True)
        ]

    def _usage(self, ends: Sequence[Sequence[End]]) -> dict[str, Any]:
        """Prompts and answers of all choices together."""
        each = [usage_of(ask, own) for ask, own in zip(self._request.asks, ends, strict=True)]
        return _sum(each) if self._request.wanted else _unwritten(_sum(each))

    # --- in pieces ---

    async def pieces(self, streams: Sequence[AnswerStream]) -> AsyncIterator[bytes]:
        """The events of a stream."""
        request = self._request
        usage = {"usage": None} if request.tells_usage else {}
        begun: set[int] = set()
        ends: list[list[End]] = [[] for _ in streams]
        logprobs = [_Logprobs(self._served) for ask in request.asks for _ in range(ask.choices)]

        def chunk(
            index: int, text: str, reason: str | None = None, tokens: Sequence[TokenInfo] = ()
        ) -> bytes:
            told = None
            if request.logprobs is not None and tokens:
                told = logprobs[index].told(tokens)
            one = {"text": text, "index": index, "logprobs": told, "finish_reason": reason}
            return data_event({**self._frame, "choices": [one], **usage})

        async for prompt, event in merged(streams):
            if not isinstance(event, (Text, Thought, End)):
                continue
            index = prompt * streams[0].ask.choices + event.choice
            piece = b""
            if index not in begun:
                begun.add(index)
                if request.echoes:
                    piece = chunk(index, request.prompts[prompt])
            if isinstance(event, End):
                check_ended_well(event)
                ends[prompt].append(event)
                piece += chunk(index, "", event.reason if request.wanted else "length")
            elif request.wanted and (event.text or (request.logprobs is not None and event.tokens)):
                piece += chunk(index, event.text, tokens=event.tokens)
            if piece:
                yield piece
        if request.tells_usage:
            yield data_event({**self._frame, "choices": [], "usage": self._usage(ends)})
        yield b"data: [DONE]\n\n"


class _Parts:
    """What one answer consists of."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.tokens: list[TokenInfo] = []
        self.end: End | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, (Text, Thought)):
            self.text.append(event.text)
            self.tokens += event.tokens
        elif isinstance(event, End):
            check_ended_well(event)
            self.end = event


class _Logprobs:
    """The shape of log-probabilities before there were chats. ``text_offset`` counts characters
    from the start of the choice's text, over all pieces of it."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def told(self, tokens: Sequence[TokenInfo]) -> dict[str, Any]:
        offsets = []
        for one in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(one.text))
        return {
            "tokens": [_name(one.text) for one in tokens],
            "token_logprobs": [one.logprobs and one.logprobs.logprob for one in tokens],
            "top_logprobs": [self._top(one) for one in tokens],
            "text_offset": offsets,
        }

    def _top(self, one: TokenInfo) -> dict[str, float] | None:
        """The token's own beside the most likely."""
        found = one.logprobs
        if found is None:
            return None
        text = self._served.tokenizer.text_bytes
        top: dict[str, float] = {}
        for token, logprob in zip(found.ids, found.logprobs, strict=True):
            top.setdefault(_name(text(token)), logprob)  # the likelier of two that read alike
        top.setdefault(_name(one.text), found.logprob)
        return top


def _name(text: bytes) -> str:
    """A token, which may be a part of a character."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def _sum(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of objects of numbers, and such objects."""
    return {
        name: _sum([one[name] for one in usages])
        if isinstance(value, dict)
        else sum(one[name] for one in usages)
        for name, value in usages[0].items()
    }


def _unwritten(usage: dict[str, Any]) -> dict[str, Any]:
    """Without the token that a prompt cannot be scored without."""
    return {**usage, "completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
