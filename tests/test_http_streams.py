"""Streams, whatever becomes of them: clients that go, silence, and errors in the midst."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.serving.errors import ApiError, bad
from bandweave.serving.http import stream as streams
from bandweave.serving.http.stream import EventStream
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

LONG = 30.0
SCRIPTS: dict[str, Callable[[list[int]], Script]] = {
    "before the first token": lambda tokens: Script(tokens=tokens, reading=LONG),
    "in prefill": lambda tokens: Script(tokens=tokens, reading=LONG, reads=[1, 2, 3]),
    "in the midst": lambda tokens: Script(tokens=tokens * 200, delay=0.05),
}
PATHS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Once", "max_tokens": 1000},
}


@contextlib.contextmanager
def serving(play: Callable[[Request, Tokenizer], Script], **options: Any) -> Iterator[ServerThread]:
    with ServerThread(served_by(play), **options) as server:
        yield server


def asked(server: ServerThread, path: str, body: dict[str, Any]) -> socket.socket:
    content = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return sock


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("moment", list(SCRIPTS))
@pytest.mark.parametrize("path", list(PATHS))
def test_a_client_that_goes_ends_its_answers(
    path: str, moment: str, stream: bool, reset: bool
) -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return SCRIPTS[moment](tokenizer.encode("word"))

    with serving(play) as server:
        sock = asked(server, path, {**PATHS[path], "stream": stream, "n": 2})
        until(lambda: server.engine.running == 2)
        if stream and moment == "in the midst":
            content = b""
            while b"data: " not in content:
                content += sock.recv(1 << 16)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone = time.monotonic()
        sock.close()
        until(lambda: server.engine.running == 0)
        assert time.monotonic() - gone < 5
        assert server.engine.cancelled == 2
        assert server.served.admission.waiting == 0  # type: ignore[union-attr]
        until(lambda: not server.app.state.exchanges._open)


def test_a_client_that_sends_the_next_request_and_goes() -> None:
    with serving(lambda request, tokenizer: Script(tokens=[5], reading=LONG)) as server:
        body = PATHS["/v1/chat/completions"]
        for more in (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * (200 << 10)):
            sock = asked(server, "/v1/chat/completions", body)
            until(lambda: server.engine.running == 1)
            sock.sendall(more[:10])
            time.sleep(0.05)
            sock.sendall(more[10:])
            if len(more) < 1000:
                time.sleep(0.1)
                assert server.engine.running == 1
                sock.close()
            until(lambda: not server.engine.running)
            sock.close()


def test_a_client_that_never_waited_leaves_nothing() -> None:
    with serving(lambda request, tokenizer: Script(tokens=[5], reading=LONG)) as server:
        for _ in range(20):
            asked(server, "/v1/chat/completions", {**PATHS["/v1/chat/completions"],
                                                   "stream": True}).close()  # fmt: skip
        until(lambda: not server.app.state.exchanges._open)
        until(lambda: not server.engine.running)
        assert server.engine.cancelled == len(server.engine.requests)


@pytest.mark.parametrize("path", list(PATHS))
def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert streams.SILENCE_SECONDS < 10
    monkeypatch.setattr(streams, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(streams, "_FIRST_SECONDS", 0.1)
    tell = Script(tokens=[], reading=1.5, reads=[1])
    with serving(lambda request, tokenizer: tell) as server:
        _, headers, content = server.post(path, {**PATHS[path], "stream": True})
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
    lines = content.split(b"\n\n")
    assert 3 <= sum(line.startswith(b":") for line in lines) <= 8
    assert lines[-2] == b"data: [DONE]"


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_at_once_is_a_503(path: str, stream: bool) -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=[], failure=StepError("node 1 was lost"))

    with serving(play) as server:
        status, headers, content = server.post(path, {**PATHS[path], "stream": stream})
    assert (status, headers["retry-after"]) == (503, "5")
    error = json.loads(content)["error"]
    assert (error["type"], error["message"]) == (
        "server_error", "the engine has failed: node 1 was lost",
    )  # fmt: skip


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_a_400(path: str, stream: bool) -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=[], failure=ValueError("token 7 is none"))

    with serving(play) as server:
        status, _, content = server.post(path, {**PATHS[path], "stream": stream})
    assert (status, json.loads(content)["error"]["message"]) == (400, "token 7 is none")


@pytest.mark.parametrize("path", list(PATHS))
def test_an_error_behind_the_first_piece_is_an_event_and_the_end(path: str) -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=tokenizer.encode("Hello"), failure=StepError("node 1 was lost"))

    with serving(play) as server:
        status, _, content = server.post(path, {**PATHS[path], "stream": True})
    pieces = content.decode().strip().split("\n\n")
    assert status == 200
    assert "Hello"[:1] in pieces[0] + pieces[1]
    error = json.loads(pieces[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")
    assert "[DONE]" not in content.decode()


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("stream", [False, True])
def test_numbers_that_are_not_finite_are_no_answer(path: str, stream: bool) -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=tokenizer.encode("Hello"), reason="error", error="NaN in layer 3")

    with serving(play) as server:
        status, _, content = server.post(path, {**PATHS[path], "stream": stream})
    assert (status, "NaN in layer 3" in content.decode()) == (200 if stream else 500, True)
    assert 'finish_reason": "error' not in content.decode()


# --- the response itself ---


class Wire:
    """What an app sends; the client goes when it is told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def content(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.sent)


def shaped(error: ApiError) -> bytes:
    return f"!{error.status} {error.message}\n".encode()


async def run(source: AsyncIterator[bytes], wire: Wire, **options: Any) -> EventStream:
    response = EventStream(source, on_error=shaped, **options)
    await response.begin(wire.receive)
    await response({"type": "http"}, wire.receive, wire.send)  # type: ignore[arg-type]
    return response


def test_no_task_is_left_and_the_source_is_closed() -> None:
    closed = []

    async def source(count: int, error: Exception | None = None) -> AsyncIterator[bytes]:
        try:
            for index in range(count):
                yield b"%d\n" % index
            if error is not None:
                raise error
            await asyncio.sleep(0 if count < 5 else LONG)
        finally:
            closed.append(count)

    async def main() -> None:
        wire = Wire()
        await run(source(2), wire)
        assert (wire.content, wire.sent[-1]["more_body"]) == (b"0\n1\n", False)
        wire = Wire()
        await run(source(1, bad("no")), wire)
        assert (wire.content, wire.sent[-1]["more_body"]) == (b"0\n!400 no\n", False)
        wire = Wire()
        with pytest.raises(ApiError):
            await run(source(0, bad("no")), wire)
        assert not wire.sent  # so that a status can still be chosen
        wire = Wire()
        asyncio.get_running_loop().call_later(0.1, wire.gone.set)
        await run(source(5), wire)
        assert wire.sent[-1].get("more_body")  # nobody is told of an end that was none
        wire = Wire()
        response = EventStream(source(6), on_error=shaped)
        asyncio.get_running_loop().call_later(0.1, response.end)
        await response({"type": "http"}, wire.receive, wire.send)  # type: ignore[arg-type]
        assert not wire.sent[-1]["more_body"]
        assert closed[:2] == [2, 1] and {5, 6} <= set(closed)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_protocol_without_comments_stays_silent() -> None:
    async def source() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.3)
        yield b"x\n"

    async def main() -> None:
        wire, told = Wire(), Wire()
        await run(source(), wire, comment=b"", silence=0.05, media_type="application/x-ndjson")
        assert wire.content == b"x\n"
        response = EventStream(source(), on_error=shaped, silence=0.05)
        await response({"type": "http"}, told.receive, told.send)  # type: ignore[arg-type]
        assert told.content.startswith(b": ") and told.content.endswith(b"x\n")

    asyncio.run(main())
