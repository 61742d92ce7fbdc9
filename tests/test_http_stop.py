"""The end of a server: nothing new, streams that end or say why they do not, nothing left."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from bandweave.generation.request import Request
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class Asked(threading.Thread):
    """One request, from a thread."""

    def __init__(self, server: ServerThread, **fields: Any) -> None:
        super().__init__()
        self.server, self.fields = server, fields
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.start()

    def run(self) -> None:
        self.answer = self.server.post("/v1/chat/completions", {**CHAT, **self.fields})

    def result(self) -> tuple[int, bytes]:
        self.join(20)
        assert self.answer is not None
        return self.answer[0], self.answer[2]


def slow(request: Request, tokenizer: Tokenizer) -> Script:
    return Script(tokens=tokenizer.encode("word") * 60, delay=0.02)


def test_without_a_drain_streams_end_in_an_error_at_once() -> None:
    with ServerThread(served_by(lambda request, tokenizer: Script(tokens=[5] * 900, delay=0.05))) \
            as server:  # fmt: skip
        stream, whole = Asked(server, stream=True), Asked(server)
        until(lambda: server.engine.running == 2)
        idle = socket.create_connection(("127.0.0.1", server.port))
        time.sleep(0.3)
        start = time.monotonic()
        server.server.stop()
        assert time.monotonic() - start < 5
        status, content = stream.result()
        assert status == 200
        last = content.decode().strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == (
            "the server is stopping"
        )
        status, content = whole.result()
        assert (status, json.loads(content)["error"]["code"]) == (503, "unavailable")
        until(lambda: not server.engine.running)
        assert server.engine.cancelled == 2
        assert idle.recv(10) == b""
        idle.close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=2).close()


def test_a_drain_lets_answers_end_and_takes_nothing_new() -> None:
    with ServerThread(served_by(slow)) as server:
        stream, whole = Asked(server, stream=True), Asked(server)
        until(lambda: server.engine.running == 2)
        start = time.monotonic()
        stopping = threading.Thread(target=server.server.stop, args=(20.0,))
        stopping.start()
        until(lambda: server.app.state.service.ending)
        assert server.post("/v1/chat/completions", CHAT)[0] == 503
        assert server.ask("GET", "/health")[0] == 503
        assert stream.result()[1].endswith(b"data: [DONE]\n\n")
        assert whole.result()[0] == 200
        stopping.join(20)
        assert time.monotonic() - start < 15  # not the whole drain
        assert server.engine.cancelled == 0


def test_a_drain_ends() -> None:
    with ServerThread(served_by(lambda request, tokenizer: Script(tokens=[5], reading=30))) as one:
        stream = Asked(one, stream=True)
        until(lambda: one.engine.running == 1)
        start = time.monotonic()
        one.server.stop(0.5)
        assert 0.5 <= time.monotonic() - start < 6
        assert b"the server is stopping" in stream.result()[1]


def test_stopped_again_it_waits_for_nothing() -> None:
    with ServerThread(served_by(lambda request, tokenizer: Script(tokens=[5], reading=30))) as one:
        stream = Asked(one, stream=True)
        until(lambda: one.engine.running == 1)
        first = threading.Thread(target=one.server.stop, args=(30.0,))
        first.start()
        until(lambda: one.app.state.service.ending)
        start = time.monotonic()
        one.server.stop(30.0)
        first.join(20)
        assert time.monotonic() - start < 8
        assert stream.result()[0] in (200, 503)


def test_a_request_whose_body_is_still_coming_is_told() -> None:
    with (
        ServerThread(served_by(slow)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
    ):
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 100\r\n\r\n{")  # fmt: skip
        until(lambda: len(server.app.state.exchanges._open) == 1)
        start = time.monotonic()
        server.server.stop()
        assert time.monotonic() - start < 5
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 503")


def test_what_ends_the_server_is_raised() -> None:
    server = ServerThread(served_by(slow))
    server._socket.close()
    with pytest.raises((OSError, ValueError)):
        server.server.start(server._socket)
