"""The links between nodes: secrets, channels, the handshake, the listener and the rendezvous."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave import NUMERICS_VERSION
from bandweave.mesh.address import bind, format_address, is_loopback, parse_address
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError
from bandweave.mesh.handshake import HandshakeError, Misfit, Unproved, connect
from bandweave.mesh.hangup import wait_hangup
from bandweave.mesh.hello import PROTOCOL_VERSION, Hello, Refusal
from bandweave.mesh.listener import Listener, mesh_only
from bandweave.mesh.rendezvous import connect_mesh
from bandweave.mesh.secret import make_secret, prove, read_secret, verify

SECRET = make_secret()
LOCAL = ("127.0.0.1", 0)


def hello(**values: Any) -> Hello:
    return Hello(**{"purpose": "mesh", "node": 1, "session": "s", **values})


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    channels = Channel(left, "node 1"), Channel(right, "node 2")
    yield channels
    for channel in channels:
        channel.close()


def framed(text: bytes) -> bytes:
    return struct.pack("<4sII", b"bwv1", len(text), 0) + text


def wait_until(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# Secrets


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secret = make_secret()
    path.write_bytes(b"\n  " + secret + b" \r\n")
    assert read_secret(path) == secret
    for content, words in ((b" \n", "empty"), (b"short", "at least 16"), (b"x" * 5000, "longer")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_secret(path)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_secret(tmp_path / "absent")


def test_proofs_depend_on_everything() -> None:
    proof = prove(SECRET, "connector", (b"ab", b"c"))
    assert verify(SECRET, "connector", (b"ab", b"c"), proof)
    assert not verify(make_secret(), "connector", (b"ab", b"c"), proof)
    assert not verify(SECRET, "acceptor", (b"ab", b"c"), proof)
    assert not verify(SECRET, "connector", (b"a", b"bc"), proof)
    for wrong in (None, 5, "", "é" * 64, proof[:-1], proof.upper() + "0"):
        assert not verify(SECRET, "connector", (b"ab", b"c"), wrong)


# Addresses


def test_parse_address() -> None:
    assert parse_address(" studio:9000") == ("studio", 9000)
    assert parse_address("[::1]:9000") == ("::1", 9000)
    assert parse_address("127.0.0.1:0", listening=True) == ("127.0.0.1", 0)
    for address in (("10.0.0.2", 9000), ("fe80::1%eth0", 1)):
        assert parse_address(format_address(address)) == address
    assert is_loopback("127.0.0.2") and is_loopback("::1") and is_loopback("LocalHost")
    assert not is_loopback("10.0.0.1") and not is_loopback("studio")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("studio", "no port"),
        ("::1:9000", "in brackets"),
        (":9000", "no usable host"),
        ("a b:1", "no usable host"),
        ("studio:http", "not a number"),
        ("studio:65536", "not a number"),
        ("studio:-1", "not a number"),
        ("studio:0", "any free port"),
    ],
)
def test_parse_address_refuses(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_address(text)


def test_bind_errors_name_the_option() -> None:
    with bind(LOCAL) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} on 127.0.0.1 is in use.*--port"):
            bind(("127.0.0.1", port), option="--port")
    with pytest.raises(ValueError, match="this machine has no address 192.0.2.1.*--listen"):
        bind(("192.0.2.1", 0))


# Channels


def test_messages_and_payloads(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    array = memoryview(struct.pack("<6i", *range(6))).cast("i", (2, 3))
    left.send({"type": "step", "text": "grüß"}, array)
    left.send({})
    right.send({"n": 1}, bytearray(b"abc"))
    assert right.receive(1) == ({"type": "step", "text": "grüß"}, array.tobytes())
    assert right.receive(1) == ({}, b"")
    assert left.receive(1) == ({"n": 1}, b"abc")


def test_large_payload_both_ways(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    payload = bytes(range(256)) * 40_000

    def echo() -> None:
        right.send(*right.receive(5))

    thread = threading.Thread(target=echo)
    thread.start()
    left.send({"type": "big"}, payload)
    assert left.receive(5) == ({"type": "big"}, payload)
    thread.join()


@settings(deadline=None, max_examples=30)
@given(
    messages=st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=4),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_messages_survive_any_cutting(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    one, other = socket.socketpair()
    sender, (raw, end) = Channel(one, "a"), socket.socketpair()
    receiver = Channel(end, "b")
    with contextlib.closing(sender), contextlib.closing(receiver), raw, other:
        for text, payload in messages:
            sender.send({"text": text}, payload)
        sender.close()
        data = b"".join(iter(lambda: other.recv(4096), b""))
        got, index = [], 0
        while data:
            size = cuts[index % len(cuts)]
            raw.sendall(data[:size])
            data, index = data[size:], index + 1
            while receiver.poll():
                got.append(receiver.receive(0))
        assert got == [({"text": text}, payload) for text, payload in messages]


def test_timeout_keeps_what_has_come(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    header = b'{"a":1}'
    data = struct.pack("<4sII", b"bwv1", len(header), 2) + header + b"xy"
    raw = left.detach()
    with raw:
        for part in (data[:5], data[5:20]):
            raw.sendall(part)
            assert not right.poll()
            started = time.monotonic()
            with pytest.raises(TimeoutError, match="node 2 did not answer within 0.05 s"):
                right.receive(0.05)
            assert time.monotonic() - started < 1
        raw.sendall(data[20:])
        assert wait_until(right.poll)
        assert right.receive(0) == ({"a": 1}, b"xy")


def test_end_names_the_peer(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    right.send({"last": True})
    right.close()
    assert left.receive(1) == ({"last": True}, b"")
    assert left.poll()
    with pytest.raises(ChannelClosed, match="node 1 closed the connection"):
        left.receive(1)
    with pytest.raises(ChannelClosed, match="node 1"):
        for _ in range(3):
            left.send({})


def test_our_own_end_is_told_from_theirs(pair: tuple[Channel, Channel]) -> None:
    left, _ = pair
    left.close()
    for act in (lambda: left.send({}), lambda: left.receive(1)):
        with pytest.raises(ChannelClosed, match="channel to node 1 is closed"):
            act()
    left.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak"),
        (struct.pack("<4sII", b"bwv1", 1 << 30, 0), "announced a message of 1073741824"),
        (struct.pack("<4sII", b"bwv1", 2, 2 << 30), "announced a message of 2 \\+ 2147483648"),
        (struct.pack("<4sII", b"bwv1", 0, 0), "announced a message of 0"),
        (struct.pack("<4sII", b"bwv1", 2, 0) + b"[]", "no JSON object"),
        (struct.pack("<4sII", b"bwv1", 2, 0) + b"\xff\xff", "no JSON object"),
        (struct.pack("<4sII", b"bwv1", 99999, 0) + b"[" * 99999, "no JSON object"),
    ],
)
def test_malformed(pair: tuple[Channel, Channel], data: bytes, words: str) -> None:
    left, right = pair
    with left.detach() as raw:
        raw.sendall(data)
        for _ in range(2):  # and it stays broken
            with pytest.raises(ChannelError, match=words):
                right.receive(1)


def test_sends_over_the_limit_are_refused_here() -> None:
    one, other = socket.socketpair()
    channel = Channel(one, "node 3", max_header_bytes=100, max_payload_bytes=10)
    with other, contextlib.closing(channel):
        for message, payload in (({"x": "y" * 100}, b""), ({}, bytes(11))):
            with pytest.raises(ValueError, match="node 3 is over the limit of 100 \\+ 10 bytes"):
                channel.send(message, payload)
        channel.send({}, bytes(10))


def test_a_peer_that_takes_nothing(pair: tuple[Channel, Channel]) -> None:
    left, _ = pair
    with pytest.raises(TimeoutError, match="node 1 took no message for 0.05 s"):
        left.send({}, bytes(50_000_000), timeout=0.05)
    with pytest.raises(ChannelClosed, match="broken"):
        left.send({})


def test_many_threads_send(pair: tuple[Channel, Channel]) -> None:
    left, right = pair

    def work(index: int) -> None:
        for step in range(50):
            left.send({"index": index, "step": step}, bytes([index]) * 10_000)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    steps = [0] * 4
    for _ in range(200):
        message, payload = right.receive(5)
        assert payload == bytes([message["index"]]) * 10_000
        assert message["step"] == steps[message["index"]]
        steps[message["index"]] += 1
    for thread in threads:
        thread.join()


def test_close_wakes_a_receiver(pair: tuple[Channel, Channel]) -> None:
    left, _ = pair
    failures: list[Exception] = []

    def receive() -> None:
        try:
            left.receive()
        except ChannelClosed as error:
            failures.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.05)
    left.close()
    thread.join(2)
    assert len(failures) == 1


def test_hangup_is_seen_behind_unread_data(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    right.send({"unread": True})
    assert not wait_hangup(left.fileno(), 0.05)
    right.close()
    assert wait_hangup(left.fileno(), 1)
    assert left.receive(0) == ({"unread": True}, b"")


# The handshake


def test_both_sides_learn_of_each_other() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0, advertise="far:1") as listener:
        sock, theirs = connect(listener.address, SECRET, hello(node=4), expect_node=0)
        with sock, listener.get_mesh("s", 4, 1) as accepted:
            assert theirs == hello(node=0, address="far:1")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() is None and accepted.gettimeout() is None
            accepted.sendall(b"data")
            assert sock.recv(4) == b"data"
        sock, _ = connect(listener.address, SECRET, hello(purpose="control", node=2))
        with sock:
            connection = listener.get_control(1)
            connection.socket.close()
            assert (connection.hello.purpose, connection.hello.node) == ("control", 2)


def test_data_may_follow_the_welcome_at_once() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:

        def answer() -> None:
            with listener.get_mesh("s", 1, 2) as sock:
                sock.sendall(bytes(100_000))

        thread = threading.Thread(target=answer)
        thread.start()
        sock, _ = connect(listener.address, SECRET, hello())
        with sock:
            assert sock.recv(100_000, socket.MSG_WAITALL) == bytes(100_000)
        thread.join()


def test_wrong_secret_is_refused_by_the_acceptor() -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", log=log.append) as listener:
        started = time.monotonic()
        with pytest.raises(HandshakeError, match="node 0 refused: the cluster secrets differ"):
            connect(listener.address, make_secret(), hello(), name="node 0")
        assert time.monotonic() - started < 1
        assert wait_until(lambda: bool(log))
        assert "127.0.0.1" in log[0] and "secrets differ" in log[0]
        with pytest.raises(TimeoutError, match="node 1 did not connect within 0.01 s"):
            listener.get_mesh("s", 1, 0.01)


def fake_acceptor(
    answer: Callable[[Channel, dict[str, Any]], None],
) -> tuple[Any, threading.Thread]:
    """A listening socket, and a thread that answers one hello there as it likes."""
    sock = bind(LOCAL)

    def run() -> None:
        channel = Channel(sock.accept()[0], "a connector")
        with contextlib.closing(channel), contextlib.suppress(OSError):
            answer(channel, channel.receive(2)[0])
            channel.receive(0.5)

    thread = threading.Thread(target=run)
    thread.start()
    return sock, thread


def challenge(nonce: str) -> dict[str, Any]:
    fields = vars(hello(node=0))
    return {"type": "challenge", "nonce": nonce, **fields}


def reflect_proof(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge("0" * 64))
    proof = channel.receive(2)[0]["proof"]
    channel.send({"type": "welcome", "proof": proof})


def reflect_nonce(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge(first["nonce"]))


def prove_wrongly(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge("0" * 64))
    channel.receive(2)
    channel.send({"type": "welcome", "proof": prove(make_secret(), "acceptor", ())})


def alter_verdict(channel: Channel, first: dict[str, Any]) -> None:
    second = challenge("0" * 64)
    channel.send(second)
    channel.receive(2)
    heard = tuple(
        json.dumps(message, sort_keys=True, separators=(",", ":")).encode()
        for message in (first, second, {"type": "refused", "reason": "no", "retry": False})
    )
    channel.send({"type": "welcome", "proof": prove(SECRET, "acceptor", heard)})


@pytest.mark.parametrize("answer", [reflect_proof, prove_wrongly, alter_verdict])
def test_an_acceptor_without_proof_is_refused(answer: Any) -> None:
    sock, thread = fake_acceptor(answer)
    with sock, pytest.raises(Unproved, match="node 0 does not know the cluster secret"):
        connect(sock.getsockname(), SECRET, hello(), name="node 0", timeout=3)
    thread.join()


def test_a_reflected_nonce_is_refused() -> None:
    sock, thread = fake_acceptor(reflect_nonce)
    with sock, pytest.raises(HandshakeError, match="does not keep to the handshake"):
        connect(sock.getsockname(), SECRET, hello(), timeout=3)
    thread.join()


def test_replay_is_refused() -> None:
    """What a connector said in a good handshake opens nothing when said again."""
    log: list[str] = []
    said: list[dict[str, Any]] = []
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:

        def relay(channel: Channel, first: dict[str, Any]) -> None:
            onward = Channel(socket.create_connection(listener.address), "the listener")
            with contextlib.closing(onward):
                said.append(first)
                onward.send(first)
                channel.send(onward.receive(2)[0])
                said.append(channel.receive(2)[0])
                onward.send(said[-1])
                channel.send(onward.receive(2)[0])

        sock, thread = fake_acceptor(relay)
        with sock:
            connect(sock.getsockname(), SECRET, hello(), timeout=3)[0].close()
        thread.join()
        listener.get_mesh("s", 1, 1).close()
        again = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(again):
            again.send(said[0])
            assert again.receive(2)[0]["type"] == "challenge"
            again.send(said[1])
            assert again.receive(2)[0]["type"] == "refused"
        assert wait_until(lambda: any("secrets differ" in line for line in log))
        with pytest.raises(TimeoutError):
            listener.get_mesh("s", 1, 0.01)


def test_numerics_versions_that_differ_are_refused_on_both_sides() -> None:
    log: list[str] = []
    there = NUMERICS_VERSION + 1
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        sentence = f"numerics version {there} here, {NUMERICS_VERSION} there: install the same"
        with pytest.raises(Misfit, match=f"node 0 does not fit: {sentence}"):
            connect(listener.address, SECRET, hello(numerics=there), name="node 0")
        sentence = f"numerics version {NUMERICS_VERSION} here, {there} there: install the same"
        with pytest.raises(HandshakeError, match=f"node 1 does not fit.*{sentence}"):
            listener.get_mesh("s", 1, 2)
        assert wait_until(lambda: bool(log)) and sentence in log[0]


def test_protocol_versions_that_differ_are_refused_on_both_sides() -> None:
    log: list[str] = []
    there = PROTOCOL_VERSION + 1
    with Listener(LOCAL, SECRET, session="s", log=log.append) as listener:
        sentence = f"protocol version {there} here, {PROTOCOL_VERSION} there"
        with pytest.raises(HandshakeError, match=sentence):
            connect(listener.address, SECRET, hello(protocol=there))
        assert wait_until(lambda: bool(log))
        assert f"protocol version {PROTOCOL_VERSION} here, {there} there" in log[0]


def test_refusals_reach_the_connector_with_their_reason() -> None:
    with Listener(LOCAL, SECRET, admit=mesh_only("other", "it is busy")) as listener:
        with pytest.raises(HandshakeError, match="refused: it serves another session"):
            connect(listener.address, SECRET, hello())
        with pytest.raises(HandshakeError, match="refused: it is busy"):
            connect(listener.address, SECRET, hello(purpose="control"))


def test_refusals_that_invite_it_are_tried_again() -> None:
    refusals = [Refusal(reason="not yet", retry=True)] * 2
    with Listener(LOCAL, SECRET, admit=lambda _: refusals.pop() if refusals else None) as listener:
        connect(listener.address, SECRET, hello())[0].close()
    sleepy = Refusal(reason="not yet", retry=True)
    with (
        Listener(LOCAL, SECRET, admit=lambda _: sleepy) as listener,
        pytest.raises(HandshakeError, match="within 0.2 s: not yet"),
    ):
        connect(listener.address, SECRET, hello(), timeout=0.2)


def test_another_node_at_the_address_is_refused() -> None:
    with (
        Listener(LOCAL, SECRET, session="s", node=3) as listener,
        pytest.raises(HandshakeError, match="node 0 .* is node 3 there, not node 0"),
    ):
        connect(listener.address, SECRET, hello(), name="node 0 (x:1)", expect_node=0)


# Strangers


def ends(sock: socket.socket) -> bool:
    """Whether the far side ends the connection within two seconds."""
    sock.settimeout(2)
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        return True
    return True


def test_a_silent_stranger_is_dropped_and_holds_up_nobody() -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, log=log.append, timeout=0.5) as listener:
        strangers = [socket.create_connection(listener.address) for _ in range(5)]
        started = time.monotonic()
        connect(listener.address, SECRET, hello())[0].close()
        assert time.monotonic() - started < 0.4
        for stranger in strangers:
            with stranger:
                assert ends(stranger)
        assert time.monotonic() - started < 2
        assert wait_until(lambda: len(log) == 5)
        assert all("says nothing" in line for line in log)


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


def test_many_strangers_lock_out_nobody() -> None:
    with Listener(LOCAL, SECRET, timeout=20) as listener:
        strangers = [socket.create_connection(listener.address) for _ in range(100)]
        connect(listener.address, SECRET, hello(), timeout=5)[0].close()
        for stranger in strangers[:30]:  # the oldest made room
            assert ends(stranger)
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak"),
        (bytes(range(256)), "does not speak"),
        (struct.pack("<4sII", b"bwv1", 1 << 20, 0), "announced a message of 1048576"),
        (struct.pack("<4sII", b"bwv1", 100, 1), "announced a message of 100 \\+ 1 bytes"),
        (framed(b'{"type":"hello"}'), "does not keep to the handshake"),
        (framed(b"[" * 4096), "no JSON object"),
        (framed(b'{"type":"hello","x":' + b"[" * 449 + b"]" * 449 + b"}"), "does not keep to"),
        (framed(b'{"type":"hello","purpose":"mesh","node":1e99}'), "does not keep to"),
        (framed(b'{"type":"hello","purpose":"mesh","node":' + b"9" * 4000 + b"}"), "keep to"),
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
        connect(listener.address, SECRET, hello())[0].close()


def answer_in_another_protocol(channel: Channel, first: dict[str, Any]) -> None:
    with channel.detach() as sock:
        sock.sendall(b"HTTP/1.1 400 Bad Request")


def test_a_stranger_at_the_address_is_named() -> None:
    sock, thread = fake_acceptor(answer_in_another_protocol)
    with sock, pytest.raises(HandshakeError, match="node 0 .* does not speak the protocol"):
        connect(sock.getsockname(), SECRET, hello(), name="node 0 (x:1)", timeout=3)
    thread.join()


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


# The rendezvous


def meet(count: int, host: str = "127.0.0.1") -> list[dict[int, socket.socket]]:
    """Connects ``count`` nodes, each in a thread of its own."""
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener((host, 0), SECRET, session="s", node=node))
            for node in range(count)
        ]
        addresses = [(host, listener.address[1]) for listener in listeners]
        results: list[dict[int, socket.socket]] = [{} for _ in range(count)]

        def join(node: int) -> None:
            results[node] = connect_mesh(node, addresses, listeners[node], SECRET, "s", 5)

        threads = [threading.Thread(target=join, args=(node,)) for node in range(count)]
        for thread in reversed(threads):
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize(("count", "host"), [(1, "127.0.0.1"), (5, "127.0.0.1"), (3, "localhost")])
def test_full_mesh(count: int, host: str) -> None:
    check_mesh(meet(count, host))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_full_mesh_over_ipv6() -> None:
    try:
        bind(("::1", 0)).close()
    except ValueError:
        pytest.skip("no IPv6 loopback")
    check_mesh(meet(3, "::1"))


def check_mesh(results: list[dict[int, socket.socket]]) -> None:
    for node, sockets in enumerate(results):
        assert sorted(sockets) == [other for other in range(len(results)) if other != node]
        for other, sock in sockets.items():
            sock.sendall(bytes([node, other]))
    for node, sockets in enumerate(results):
        for other, sock in sockets.items():
            with sock:
                assert sock.recv(2, socket.MSG_WAITALL) == bytes([other, node])


def test_an_unreachable_node_is_named_in_time() -> None:
    with bind(LOCAL) as sock:
        closed = sock.getsockname()
    with bind(LOCAL) as mute, Listener(LOCAL, SECRET, session="s", node=1) as listener:
        for address, cause in ((closed, "refused"), (mute.getsockname(), "it says nothing")):
            name = f"node 0 \\({format_address(address)}\\)"
            started = time.monotonic()
            with pytest.raises(HandshakeError, match=f"{name} could not be .*0.4 s.*{cause}"):
                connect_mesh(1, [address, listener.address], listener, SECRET, "s", 0.4)
            assert time.monotonic() - started < 2


def test_a_node_that_does_not_come_is_named_in_time() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:
        addresses = [listener.address, ("10.0.0.9", 9000)]
        with pytest.raises(HandshakeError, match=r"node 1 \(10.0.0.9:9000\) did not .*0.1 s"):
            connect_mesh(0, addresses, listener, SECRET, "s", 0.1)
        with pytest.raises(ValueError, match="node 2 is none of the 2 nodes"):
            connect_mesh(2, addresses, listener, SECRET, "s", 0.1)


def test_an_unknown_host_is_named_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(HandshakeError, match="nowhere.invalid:9000 .*nowhere.invalid"):
        connect(("nowhere.invalid", 9000), SECRET, hello(), timeout=1)
    assert time.monotonic() - started < 3
