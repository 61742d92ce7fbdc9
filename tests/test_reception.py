"""Strangers at the port: they can neither deafen, fill, flood nor end whoever listens there."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.handshake import reception
from bandweave.handshake.acceptance import Acceptance
from bandweave.handshake.connection import Connection
from bandweave.handshake.handshake import connect
from bandweave.handshake.hello import PROTOCOL_VERSION
from bandweave.handshake.listener import Listener
from bandweave.handshake.reception import Reception
from bandweave.handshake.stranger_log import StrangerLog
from bandweave.mesh.address import bind
from tests.helpers.connections import LOCAL, SECRET, ended, ends, framed, hello, wait_until


def served(listener: Any, timeout: float = 10.0) -> bool:
    """Whether somebody who knows the secret is welcomed."""
    connect(listener.address, SECRET, hello(), timeout=timeout)[0].close()
    return True


def strangers(listener: Any, count: int, say: bytes = b"") -> list[socket.socket]:
    socks = [socket.create_connection(listener.address) for _ in range(count)]
    for sock in socks:
        sock.sendall(say)
    return socks


def test_a_silent_stranger_is_dropped_and_holds_up_nobody() -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, log=log.append, timeout=0.5) as listener:
        silent = strangers(listener, 5)
        started = time.monotonic()
        assert served(listener)
        assert time.monotonic() - started < 0.4
        for stranger in silent:
            with stranger:
                assert ends(stranger)
        assert wait_until(lambda: len(log) == 2)
        assert "says nothing" in log[0]
        assert "says nothing; 3 others like it within a second" in log[1]


def test_a_slow_stranger_gets_no_more_time() -> None:
    with (
        Listener(LOCAL, SECRET, timeout=0.3) as listener,
        socket.create_connection(listener.address) as stranger,
    ):
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in struct.pack("<4sII", b"bwv1", 4000, 0) + b" " * 100:
                stranger.sendall(bytes([byte]))
                time.sleep(0.02)
        assert ends(stranger)
        assert time.monotonic() - started < 3


HELLO = b'{"type":"hello","protocol":%d,"nonce":"' % PROTOCOL_VERSION + b"0" * 64 + b'"}'


@pytest.mark.parametrize("said", [b"", framed(HELLO)[:60], framed(HELLO)])
def test_many_strangers_lock_out_nobody(said: bytes) -> None:
    """However far they go: room is made. (Which of those that speak goes depends on how far the
    listener had come when they spoke; of those that are silent, the oldest go.)"""
    with Listener(LOCAL, SECRET, timeout=60) as listener, contextlib.ExitStack() as clients:
        many = strangers(listener, 400, said)
        for stranger in many:
            clients.callback(stranger.close)
        assert served(listener)
        assert wait_until(lambda: sum(map(ended, many)) >= 400 - 256, 20)
        if not said:
            assert all(map(ended, many[:100]))
            assert not any(map(ended, many[-100:]))
        clients.close()
        assert served(listener)


def test_who_has_spoken_outlives_the_silent() -> None:
    with Listener(LOCAL, SECRET, timeout=60) as listener, contextlib.ExitStack() as clients:
        (speaker,) = strangers(listener, 1, framed(HELLO))
        clients.callback(speaker.close)
        assert speaker.recv(12, socket.MSG_WAITALL)[:4] == b"bwv1"
        silent = strangers(listener, 300)
        for stranger in silent:
            clients.callback(stranger.close)
        assert ends(silent[0], 20)
        assert not ended(speaker)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak"),
        (bytes(range(256)), "does not speak"),
        (struct.pack("<4sII", b"bwv1", 1 << 20, 0), "announced a message of 1048576"),
        (struct.pack("<4sII", b"bwv1", 100, 1), "does not speak"),
        (framed(b'{"type":"hello"}'), "does not keep to the handshake"),
        (framed(b"[" * 4096), "no JSON object"),
        (framed(b'{"type":"hello","x":' + b"[" * 449 + b"]" * 449 + b"}"), "does not keep to"),
        (framed(b'{"type":"hello","protocol":1e99,"nonce":""}'), "does not keep to"),
        (framed(b'{"type":"hello","protocol":' + b"9" * 4000 + b"}"), "keep to"),
        (framed(HELLO) + framed(HELLO), "does not keep to the handshake"),
        (framed(HELLO.replace(b"hello", b"proof")), "does not keep to the handshake"),
    ],
)
def test_garbage_is_dropped_at_once(data: bytes, words: str) -> None:
    log: list[str] = []
    with (
        Listener(LOCAL, SECRET, log=log.append, timeout=20) as listener,
        socket.create_connection(listener.address) as stranger,
    ):
        stranger.sendall(data)
        assert ends(stranger)
        assert wait_until(lambda: bool(log))
        assert re.search(words, log[0])
        assert served(listener)


def test_a_listener_may_stop_and_another_take_its_socket() -> None:
    first = Listener(LOCAL, SECRET)
    address = first.address
    sock = first.stop()
    assert first.stop() is sock
    with pytest.raises(ConnectionError, match="closed"):
        first.get_control(1)
    result: list[socket.socket] = []
    thread = threading.Thread(
        target=lambda: result.append(connect(address, SECRET, hello(), timeout=5)[0])
    )
    thread.start()  # waits in the system's queue
    time.sleep(0.05)
    with Listener(sock, SECRET):
        thread.join()
    result[0].close()


# Shortages


def test_no_stranger_needs_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Listener(LOCAL, SECRET) as listener:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        many = strangers(listener, 20)
        assert served(listener)
        for stranger in many:
            stranger.close()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("odd"), ValueError("odd"), OSError()]
)
@pytest.mark.parametrize("where", ["advance", "begin", "deliver", "admit"])
def test_no_error_of_one_connection_harms_another(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    """Raised for the first connection, at every place where something may fail."""
    left = [error]
    got: list[Connection] = []

    def fail() -> None:
        if left:
            raise left.pop()

    real_advance, real_begin = Acceptance.advance, Reception._begin
    if where == "advance":
        monkeypatch.setattr(Acceptance, "advance", lambda self: fail() or real_advance(self))
    if where == "begin":
        monkeypatch.setattr(
            Reception, "_begin", lambda self, *what: fail() or real_begin(self, *what)
        )
    with bind(LOCAL) as sock:
        port = Reception(
            sock,
            SECRET,
            own=lambda: hello(node=0),
            admit=lambda _: fail() if where == "admit" else None,
            deliver=lambda one: (fail() if where == "deliver" else None) or got.append(one),
        )
        try:
            with contextlib.suppress(OSError):  # the first may fail; it is told by its end
                connect(sock.getsockname(), SECRET, hello(), timeout=0.1)[0].close()
            connect(sock.getsockname(), SECRET, hello(), timeout=10)[0].close()
            assert wait_until(lambda: bool(got)) and not left
        finally:
            port.stop()
        for connection in got:
            connection.socket.close()


def test_a_log_that_fails_harms_nobody() -> None:
    def log(sentence: str) -> None:
        raise OSError(28, "No space left on device")

    with Listener(LOCAL, SECRET, log=log) as listener:
        for _ in range(3):
            (stranger,) = strangers(listener, 1, b"x" * 12)
            with stranger:
                assert ends(stranger)
        assert served(listener)


SHORT_OF_DESCRIPTORS = """
import resource, socket, sys
from bandweave.handshake.listener import Listener
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
lines = []
with Listener(("127.0.0.1", 0), bytes.fromhex(sys.argv[2]), timeout=60, log=lines.append) as port:
    taken = [open("/dev/null") for _ in range(int(sys.argv[3]))]
    print(port.address[1], flush=True)
    for _ in range(3):
        connection = port.get_control(60)
        connection.socket.sendall(b"welcome")
        connection.socket.close()
print(len(lines))
"""


@pytest.mark.parametrize(("limit", "taken"), [(40, 0), (40, 26), (24, 10)])
def test_strangers_cannot_hold_all_descriptors(limit: int, taken: int) -> None:
    """Nor can they where the process itself has left few."""
    arguments = [str(limit), SECRET.hex(), str(taken)]
    child = subprocess.Popen(
        [sys.executable, "-c", SHORT_OF_DESCRIPTORS, *arguments], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        address = ("127.0.0.1", int(child.stdout.readline()))
        many = [socket.create_connection(address) for _ in range(60)]
        for _ in range(3):
            sock, _, _ = connect(address, SECRET, hello(purpose="control"), timeout=30)
            with sock:
                assert sock.recv(7, socket.MSG_WAITALL) == b"welcome"
        for stranger in many:
            stranger.close()
        assert int(child.stdout.readline()) < 100
        assert child.wait(20) == 0


def test_the_number_that_waits_is_bounded_by_the_descriptors_there_are() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        assert reception._most_waiting() == 16
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert 16 <= reception._most_waiting() <= 256


# Floods


@contextlib.contextmanager
def flood(address: tuple[str, int], said: bytes) -> Iterator[list[int]]:
    """Connections as fast as one thread can make them; how many there were."""
    over, made = threading.Event(), [0]

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(address, 0.2) as sock:
                sock.sendall(said)
                made[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("said", [b"x" * 12, framed(HELLO)])
def test_a_flood_leaves_few_lines_and_nothing_else(said: bytes) -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, log=log.append) as listener:
        served(listener)
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        started = time.monotonic()
        with flood(listener.address, said) as made:
            time.sleep(2)
            assert served(listener)
        seconds = time.monotonic() - started
        assert made[0] > 100
        assert 2 <= len(log) <= seconds + 2
        assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2, 8)
        assert threading.active_count() <= threads
        assert served(listener)


def test_the_lines_account_for_every_stranger() -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, log=log.append) as listener:
        for _ in range(50):
            (stranger,) = strangers(listener, 1, b"x" * 12)
            with stranger:
                assert ends(stranger)

        def counted() -> int:
            more = [re.search(r"(\d+) others", line) for line in log]
            return len(log) + sum(int(found[1]) for found in more if found)

        assert wait_until(lambda: counted() == 50)
        assert len(log) < 20


def test_one_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bandweave.handshake.stranger_log.time.monotonic", lambda: now[0])
    lines: list[str] = []
    log = StrangerLog(lines.append)
    log.add("one")
    log.add("two")
    log.add("three")
    assert lines == ["one"] and log.due() == 101.0
    log.flush()
    assert lines == ["one"]
    now[0] = 101.5
    log.add("four")
    log.flush()
    assert lines == ["one", "four; 2 others like it within a second"] and log.due() is None
    now[0] = 103.0
    log.add("five")
    assert lines[-1] == "five"


def test_while_others_compute_strangers_get_next_to_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[float] = []
    real = Reception._begin

    def begin(self: Reception, sock: socket.socket, peer: str) -> None:
        begun.append(time.monotonic())
        real(self, sock, peer)

    monkeypatch.setattr(Reception, "_begin", begin)
    with bind(LOCAL) as sock:
        port = Reception(
            sock,
            SECRET,
            own=lambda: hello(node=0),
            admit=lambda _: None,
            deliver=lambda connection: connection.socket.close(),
        )
        try:
            port.spare(True)
            with flood(sock.getsockname(), b"x" * 12):
                time.sleep(1)
                seconds, count = time.monotonic() - begun[0], len(begun)
            most = reception._SPARING_BURST + reception._SPARING_RATE * seconds
            assert 10 <= count <= most + 1
            port.spare(False)
            connect(sock.getsockname(), SECRET, hello(), timeout=5)[0].close()
        finally:
            port.stop()


def test_nothing_of_a_stranger_is_read_beyond_what_a_handshake_needs() -> None:
    """However much is sent: the rest stays with the system."""
    with Listener(LOCAL, SECRET, timeout=1) as listener:
        (stranger,) = strangers(listener, 1, framed(HELLO))
        with stranger:
            stranger.settimeout(2)
            with contextlib.suppress(OSError):
                for _ in range(100):
                    stranger.sendall(bytes(1 << 20))
            assert ends(stranger)
        assert served(listener)
