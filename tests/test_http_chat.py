"""Chats over HTTP, over a scripted engine: what goes over the wire, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    served = served_by(lambda request, tokenizer: Script(tokens=tokenizer.encode("Hello there!")))
    with ServerThread(served) as server:
        yield server


def test_a_chat_in_one_piece_and_in_pieces(server: ServerThread) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
    status, _, content = server.post("/v1/chat/completions", body)
    assert status == 200
    whole = json.loads(content)["choices"][0]["message"]["content"]
    status, headers, content = server.post("/v1/chat/completions", {**body, "stream": True})
    assert headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    pieces = [json.loads(line)["choices"][0]["delta"].get("content") for line in lines]
    assert "".join(piece or "" for piece in pieces) == whole == "Hello there!"


def _chunks(server: ServerThread, **fields: Any) -> list[dict[str, Any]]:
    """Of a stream that consists of nothing but them and its end."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}
    status, _, content = server.post("/v1/chat/completions", body)
    assert status == 200, content
    *events, last, nothing = content.decode().split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_the_chunks_of_a_stream(server: ServerThread) -> None:
    """All belong together; each choice has its role first and its reason last, and each once."""
    chunks = _chunks(server, model="demo", n=3)
    frames = {tuple((name, chunk[name]) for name in chunk if name != "choices") for chunk in chunks}
    (frame,) = map(dict, frames)
    assert frame.pop("id").startswith("chatcmpl-") and frame.pop("created") > 0
    assert frame == {"object": "chat.completion.chunk", "model": "demo",
                     "system_fingerprint": "bandweave-test"}  # fmt: skip
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    for index in range(3):
        own = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
        assert all(set(one) == {"index", "delta", "logprobs", "finish_reason"} for one in own)
        first, *between, last = own
        assert first["delta"] == {"role": "assistant", "content": None}
        assert all(set(one["delta"]) == {"content"} for one in between)
        assert "".join(one["delta"]["content"] for one in between) == "Hello there!"
        assert (last["delta"], last["finish_reason"]) == ({}, "length")
        assert all(one["finish_reason"] is None for one in own[:-1])


def test_usage_is_told_where_it_is_asked_for(server: ServerThread) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "n": 2}
    usage = json.loads(server.post("/v1/chat/completions", body)[2])["usage"]
    request = server.engine.requests[-1]
    said = len(server.served.tokenizer.encode("Hello there!"))  # type: ignore[union-attr]
    assert usage["prompt_tokens"] == len(request.tokens)
    assert usage["completion_tokens"] == 2 * said
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    *chunks, last = _chunks(server, n=2, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]) == ([], usage)
    assert all(chunk["usage"] is None for chunk in chunks)
    for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
        chunks = _chunks(server, **options)
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)
