"""Clients that do not keep pace, over real sockets: they are bounded, and others do not notice."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.generation.request import Request
from bandweave.serving.http.limits import Limits
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

LIMITS = Limits(
    connections=8, header=0.6, body=0.6, linger=0.4, idle=2, taking=0.6, header_bytes=16 << 10,
    content_bytes=6 << 20,
)  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


def play(request: Request, tokenizer: Tokenizer) -> Script:
    if request.params.max_tokens == 4000:  # more than sockets hold
        return Script(tokens=[tokenizer.encode("world")[0]] * 4000, delay=0.002)
    return Script(tokens=tokenizer.encode("Hello there!"))


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread(served_by(play, context=8192), LIMITS) as server:
        yield server


@contextlib.contextmanager
def connected(server: ServerThread, said: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(said)
        yield sock


def heard(sock: socket.socket, last: bytes = b"\0") -> bytes:
    """All that comes until the end, or what comes last."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while last not in content and (piece := sock.recv(1 << 16)):
            content += piece
    return content


def assert_serves(server: ServerThread) -> None:
    start = time.monotonic()
    assert server.post("/v1/chat/completions", CHAT)[0] == 200
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("said", [b"", b"G", b"POST / HTTP/1.1\r\n", POST])
def test_headers_that_do_not_come(server: ServerThread, said: bytes) -> None:
    with connected(server, said) as sock:
        assert_serves(server)
        answer = heard(sock)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come within" in answer


def test_headers_that_come_drop_by_drop(server: ServerThread) -> None:
    start = time.monotonic()
    with connected(server, POST) as sock, contextlib.suppress(ConnectionError):
        while time.monotonic() - start < 10:
            sock.sendall(b"X: y\r\n")
            time.sleep(0.05)
    assert 0.3 < time.monotonic() - start < 5


def test_a_second_request_has_as_long_as_the_first(server: ServerThread) -> None:
    with connected(server, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:
        assert b"200 OK" in heard(sock, b'"models":[]}')
        time.sleep(0.8)  # longer than headers may take
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in heard(sock, b'"models":[]}')
        sock.sendall(b"GET /v1")
        assert heard(sock).startswith(b"HTTP/1.1 408")


def test_an_idle_connection_ends(server: ServerThread) -> None:
    start = time.monotonic()
    with connected(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:
        assert b"200 OK" in heard(sock)
    assert 1 < time.monotonic() - start < 8


@pytest.mark.parametrize("headers", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_does_not_come(server: ServerThread, headers: bytes) -> None:
    with connected(server, POST + headers + b"\r\n") as sock:
        assert_serves(server)
        answer = heard(sock)
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_a_body_that_nobody_wants_any_more_is_not_read_for_ever(server: ServerThread) -> None:
    start = time.monotonic()
    headers = b"Content-Length: 999999999\r\n\r\n"
    with connected(server, POST + headers) as sock, contextlib.suppress(ConnectionError):
        assert b"HTTP/1.1 413" in sock.recv(1 << 16)
        while time.monotonic() - start < 10:
            sock.sendall(b" " * 100)
            time.sleep(0.05)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (20 << 10),  # and no end
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_request(server: ServerThread, said: bytes) -> None:
    with connected(server, said) as sock:
        answer = heard(sock)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert_serves(server)


def test_rubbish_behind_a_request_that_is_answered(server: ServerThread) -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    with connected(server, head + body + b"\x00\x00 rubbish\r\n\r\n") as sock:
        answer = heard(sock)
    assert b"[DONE]" in answer
    assert_serves(server)


def test_the_oldest_idle_connection_gives_way(server: ServerThread) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(server)) for _ in range(40)]
        assert_serves(server)
        assert heard(idle[0]) == b""


def test_no_room_where_all_are_in_use() -> None:
    served = served_by(lambda request, tokenizer: Script(tokens=[1], reading=30))
    body = json.dumps(CHAT).encode()
    asked = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    limits = Limits(connections=2)
    with ServerThread(served, limits) as one, connected(one, asked), connected(one, asked):
        until(lambda: one.engine.running == 2)
        with connected(one, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:
            assert b"503" in heard(sock).partition(b"\r\n")[0]


def test_a_client_that_takes_nothing_is_cut_off_and_its_answer_ends(server: ServerThread) -> None:
    before = server.engine.cancelled
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 4000}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.engine.running > 0)
        assert_serves(server)
        until(lambda: not server.app.state.exchanges._open)
        assert_serves(server)
    until(lambda: not server.engine.running)
    assert server.engine.cancelled == before + 1


def test_peers_that_vanish_are_found_and_nothing_waits_to_be_sent() -> None:
    with ServerThread(served_by(play), LIMITS) as one, connected(one) as sock:
        until(lambda: len(one.server.server_state.connections) == 1)
        (connection,) = one.server.server_state.connections
        peer: Any = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 600
        assert peer.proto == 0  # so that asyncio leaves it as it is
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.fileno() >= 0


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"a": NaN}', 400, "NaN"),
        (b"[" * 100_000, 400, "nested"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 400, "64 deep"),
        (b'{"a": "\\ud800"}', 400, "surrogate"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 400, "'c' twice"),
        (b'{"a\\ud800": 1, "a\\ud800": 2}', 400, "twice"),
        (b'{"a": "\xff"}', 400, "no JSON"),
        (b'{"messages": [' + b"0," * 1_100_000 + b"0]}", 400, "1000000 values"),
        (b" " * (5 << 20), 413, "4 MiB"),
    ],
)
def test_bodies_beyond_the_bounds(
    server: ServerThread, body: bytes, status: int, words: str
) -> None:
    found, _, content = server.post("/v1/chat/completions", body)
    assert found == status
    assert words in json.loads(content)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"a": {"b": [1, "\\udfff"]}}', "a.b[1]"),
        (b'{"a": [{"\\udfff": 1}]}', "a[0]"),
        (b'{"a\\n": "\\udfff"}', "a\\n"),
        (b'{"\\udfff": 1}', None),
        (b'{"a": 1, "a": 2}', "a"),
    ],
)
def test_what_is_wrong_with_a_body_is_found_in_it(
    server: ServerThread, body: bytes, param: str | None
) -> None:
    status, _, content = server.post("/v1/chat/completions", body)
    assert (status, json.loads(content)["error"]["param"]) == (400, param)


def test_contents_of_all_requests_together_are_bounded(server: ServerThread) -> None:
    large = POST + b"Content-Length: 4000000\r\n\r\n" + b" " * 3_900_000
    with connected(server, large):
        until(lambda: server.app.state.contents.held > 3_000_000)
        status, headers, _ = server.post("/v1/chat/completions", b" " * 3_000_000)
        assert (status, headers["retry-after"]) == (503, "1")
        assert_serves(server)
    until(lambda: server.app.state.contents.held == 0)


def test_another_kind_of_content(server: ServerThread) -> None:
    headers = {"Content-Type": "text/plain"}
    assert server.post("/v1/chat/completions", b"{}", headers)[0] == 415
