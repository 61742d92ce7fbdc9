"""Chats over HTTP, over a scripted engine: what goes over the wire, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator

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
