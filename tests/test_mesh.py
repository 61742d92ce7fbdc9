"""The links between nodes: secrets, addresses and channels."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import struct
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bandweave.handshake.secret import make_secret, prove, read_secret, verify
from bandweave.mesh.address import bind, format_address, is_loopback, parse_address
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError
from bandweave.mesh.hangup import wait_hangup
from tests.helpers.connections import LOCAL, SECRET, framed, wait_until


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    channels = Channel(left, "node 1"), Channel(right, "node 2")
    yield channels
    for channel in channels:
        channel.close()


# Secrets


def token_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_token_file(tmp_path: Path) -> None:
    secret = make_secret()
    assert secret.startswith(b"bandweave-") and len(set(make_secret() for _ in range(9))) == 9
    assert read_secret(token_file(tmp_path, b"\n  " + secret + b" \r\n")) == secret
    for content, words in ((b" \n", "empty"), (b"short", "at least 16"), (b"x" * 5000, "longer")):
        with pytest.raises(ValueError, match=words):
            read_secret(token_file(tmp_path, content))
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_secret(tmp_path / "absent")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_secret(tmp_path)
    with pytest.raises(ValueError, match="longer than"):
        read_secret("/dev/zero")


@settings(deadline=None, max_examples=50)
@given(at=st.integers(10, 81), instead=st.sampled_from(b"0123456789abcdefg -"))
def test_a_slip_in_a_token_is_noticed(at: int, instead: int) -> None:
    secret = bytearray(make_secret())
    assume(secret[at] != instead)
    secret[at] = instead
    assume(bytes(secret).strip() == secret)
    with tempfile.TemporaryDirectory() as folder:
        path = token_file(Path(folder), bytes(secret))
        with pytest.raises(ValueError, match="is not whole: its check digits do not fit"):
            read_secret(path)


def test_a_token_cut_short_is_noticed(tmp_path: Path) -> None:
    for length in (11, 40, 81):
        with pytest.raises(ValueError, match="is not whole"):
            read_secret(token_file(tmp_path, make_secret()[:length]))


def test_only_what_cannot_be_guessed_is_taken_as_it_is(tmp_path: Path) -> None:
    """Anything else costs whoever guesses tens of megabytes and a good part of a second a guess."""
    former = secrets.token_hex(32).encode()
    assert read_secret(token_file(tmp_path, former)) == former
    stretched = set()
    for words in (b"correct horse battery staple", b"0" * 64, b"x" * 32, former[:32], former * 2):
        secret = read_secret(token_file(tmp_path, words + b"\n"))
        assert secret == read_secret(token_file(tmp_path, b" " + words))
        assert len(secret) == 32 and secret != words
        stretched.add(secret)
    assert len(stretched) == 5


def test_a_recorded_handshake_helps_nobody_who_guesses_words(tmp_path: Path) -> None:
    words = b"correct horse battery staple"
    secret = read_secret(token_file(tmp_path, words))
    heard = (b"hello", b"challenge")
    assert not verify(words, "connector", heard, prove(secret, "connector", heard))


def test_a_secret_needs_a_python_that_can_stretch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = token_file(tmp_path, b"correct horse battery staple")
    monkeypatch.delattr(hashlib, "scrypt")
    with pytest.raises(ValueError, match="without scrypt.*--make-token"):
        read_secret(path)
    assert read_secret(token_file(tmp_path, SECRET)) == SECRET


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o660, 0o644])
def test_a_token_file_that_others_can_read_gets_a_remark(mode: int, tmp_path: Path) -> None:
    remarks: list[str] = []
    path = token_file(tmp_path, SECRET, mode)
    assert read_secret(path, remarks.append) == SECRET
    expected = f"the token file {path} is open to other users of this machine: chmod 600 {path}"
    assert remarks == ([] if mode in (0o600, 0o400) else [expected])


def test_a_token_may_come_out_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a password manager, which takes its time; and one that nobody fills ends in words."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # a writer that is there, and says nothing yet

    def write() -> None:
        time.sleep(0.2)
        with open(path, "wb") as pipe:
            pipe.write(SECRET)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    assert read_secret(path) == SECRET
    thread.join()
    with pytest.raises(ValueError, match="is empty"):
        read_secret(path)
    writer = os.open(path, os.O_RDWR)
    monkeypatch.setattr("bandweave.handshake.secret._PIPE_SECONDS", 0.1)
    with pytest.raises(ValueError, match="cannot be read: nobody writes to this pipe"):
        read_secret(path)
    os.close(writer)


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


def test_messages(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    left.send({"type": "step", "text": "grüß"})
    left.send({})
    right.send({"n": 1})
    assert right.receive(1) == {"type": "step", "text": "grüß"}
    assert right.receive(1) == {}
    assert left.receive(1) == {"n": 1}


def test_large_messages_both_ways(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    message = {"tokens": list(range(500_000))}

    def echo() -> None:
        right.send(right.receive(5))

    thread = threading.Thread(target=echo)
    thread.start()
    left.send(message)
    assert left.receive(5) == message
    thread.join()


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(st.text(max_size=50), max_size=4),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_messages_survive_any_cutting(texts: list[str], cuts: list[int]) -> None:
    one, other = socket.socketpair()
    sender, (raw, end) = Channel(one, "a"), socket.socketpair()
    receiver = Channel(end, "b")
    with contextlib.closing(sender), contextlib.closing(receiver), raw, other:
        for text in texts:
            sender.send({"text": text})
        sender.close()
        data = b"".join(iter(lambda: other.recv(4096), b""))
        got, index = [], 0
        while data:
            size = cuts[index % len(cuts)]
            raw.sendall(data[:size])
            data, index = data[size:], index + 1
            while receiver.poll():
                got.append(receiver.receive(0))
        assert got == [{"text": text} for text in texts]


def test_timeout_keeps_what_has_come(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    data = framed(b'{"a":1}')
    raw = left.detach()
    with raw:
        for part in (data[:5], data[5:15]):
            raw.sendall(part)
            assert not right.poll()
            started = time.monotonic()
            with pytest.raises(TimeoutError, match="node 2 did not answer within 0.05 s"):
                right.receive(0.05)
            assert time.monotonic() - started < 1
        raw.sendall(data[15:])
        assert wait_until(right.poll)
        assert right.receive(0) == {"a": 1}


def test_end_names_the_peer(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    right.send({"last": True})
    right.close()
    assert left.receive(1) == {"last": True}
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
        (struct.pack("<4sII", b"bwv1", 2, 1), "does not speak"),
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
    channel = Channel(one, "node 3", max_message_bytes=100)
    with other, contextlib.closing(channel):
        for send in (channel.send, channel.offer):
            with pytest.raises(ValueError, match="node 3 is over the limit of 100 bytes"):
                send({"x": "y" * 100})
        channel.send({"x": "y" * 80})


def test_room_grows_with_what_comes_and_not_with_what_is_announced(
    pair: tuple[Channel, Channel],
) -> None:
    left, right = pair
    with left.detach() as raw:
        raw.sendall(struct.pack("<4sII", b"bwv1", 16 << 20, 0))
        tracemalloc.start()
        try:
            assert not right.poll()
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_a_peer_that_takes_nothing(pair: tuple[Channel, Channel]) -> None:
    left, _ = pair
    with pytest.raises(TimeoutError, match="node 1 took no message for 0.05 s"):
        left.send({"text": "x" * 10_000_000}, timeout=0.05)
    with pytest.raises(ChannelClosed, match="broken"):
        left.send({})


def test_messages_that_may_be_lost_are_lost_whole(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    sent = 0
    while left.offer({"number": sent, "fill": "x" * 50_000}):
        sent += 1
    assert sent > 1
    assert not left.offer({"number": -1})
    got: list[int] = []
    reader = threading.Thread(
        target=lambda: got.extend(right.receive(5)["number"] for _ in range(sent + 1))
    )
    reader.start()
    left.send({"number": sent}, timeout=5)  # waits, and comes after all that was taken
    reader.join()
    assert got == list(range(sent + 1))


def test_a_paused_reader_is_waited_for_and_one_that_ends_is_not() -> None:
    one, other = socket.socketpair()
    patient = Channel(one, "the controller", send_timeout=None)
    failures: list[OSError] = []

    def talk() -> None:
        try:
            while True:
                patient.send({"tokens": [1] * 10_000})
        except OSError as error:
            failures.append(error)

    with contextlib.closing(patient):
        thread = threading.Thread(target=talk)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        other.close()
        thread.join(5)
        assert not thread.is_alive() and isinstance(failures[0], ChannelClosed)


def test_many_threads_send(pair: tuple[Channel, Channel]) -> None:
    left, right = pair

    def work(index: int) -> None:
        for step in range(50):
            left.send({"index": index, "step": step, "fill": str(index) * 10_000})

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    steps = [0] * 4
    for _ in range(200):
        message = right.receive(5)
        assert message["fill"] == str(message["index"]) * 10_000
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
    assert left.receive(0) == {"unread": True}
