"""Records: nothing but the next one opens; channels and streams over them."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.mesh.channel import LAST_WORD, Channel, ChannelClosed, ChannelTampered
from bandweave.mesh.sealing import (
    CIPHERS,
    RECORD_BYTES,
    TAG_BYTES,
    Keys,
    MissingLibrary,
    Opener,
    Sealer,
    SealError,
    derive,
    library,
)
from bandweave.mesh.stream import Stream, TamperedError

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
KEYS = Keys(send=KEY, receive=OTHER)
THEIRS = Keys(send=OTHER, receive=KEY)


def opened(opener: Opener, sealed: bytes) -> bytes:
    plain, at = b"", 0
    while at < len(sealed):
        piece = sealed[at : at + opener.wanted]
        if len(piece) < opener.wanted:
            return plain
        at += opener.wanted
        plain += opener.open(piece)
    return plain


def records(sizes: list[int], seed: int = 0, **options: Any) -> tuple[list[bytes], list[bytes]]:
    """Random texts, and each as a record."""
    rng, sealer = random.Random(seed), Sealer(KEY, **options)
    texts = [rng.randbytes(size) for size in sizes]
    return texts, [sealer.seal(text) for text in texts]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_what_is_sealed_opens(cipher: str) -> None:
    sizes = [1, 12, 100, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 3 * RECORD_BYTES + 5]
    texts, sealed = records(sizes, cipher=cipher)
    opener = Opener(KEY, cipher)
    for text, record in zip(texts, sealed, strict=True):
        count = -(-len(text) // RECORD_BYTES)
        assert len(record) == len(text) + count * (4 + 2 * TAG_BYTES)
        assert opened(opener, record) == text
    assert opened(opener, b"") == b""


@pytest.mark.parametrize("seed", range(40))
def test_nothing_but_the_next_record_opens(seed: int) -> None:
    """Flipped, repeated, left out, swapped, cut short, sent back: never a byte of it."""
    rng = random.Random(seed)
    texts, sealed = records([rng.randrange(1, 300) for _ in range(4)], seed)
    how = ("flip", "repeat", "drop", "swap", "cut", "reflect", "insert")[seed % 7]
    changed, sound = list(sealed), 1
    if how == "flip":
        flipped = bytearray(changed[1])
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        changed[1] = bytes(flipped)
    elif how == "repeat":
        changed.insert(1, changed[0])
    elif how == "drop":
        del changed[1]
    elif how == "swap":
        changed[1], changed[2] = changed[2], changed[1]
    elif how == "cut":
        changed[1] = changed[1][: rng.randrange(1, len(changed[1]))]
    elif how == "reflect":
        changed[1] = Sealer(OTHER).seal(texts[1])
    else:
        changed.insert(1, rng.randbytes(rng.randrange(20, 90)))
    opener, accepted, stream = Opener(KEY), b"", b"".join(changed) + bytes(400)
    with pytest.raises(SealError):  # at the latest at what stands behind all
        while True:
            accepted += opener.open(stream[: (wanted := opener.wanted)])
            stream = stream[wanted:]
    assert accepted == b"".join(texts[:sound])


def test_a_length_that_makes_no_sense_is_refused() -> None:
    for length in (0, RECORD_BYTES + 1, 1 << 31):
        sealer, opener = Sealer(KEY), Opener(KEY)
        nonce = sealer._nonce()
        piece = sealer._aead.encrypt(nonce, length.to_bytes(4, "little"), None)
        with pytest.raises(SealError):
            opener.open(piece)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_keys_are_renewed(cipher: str) -> None:
    """Both sides renew them at the same seals; who does not, or has an old one, opens nothing."""
    sizes = [5] * 12
    texts, sealed = records(sizes, cipher=cipher, seals_a_key=6)
    same = Opener(KEY, cipher, 6)
    assert [opened(same, one) for one in sealed] == texts
    never = Opener(KEY, cipher)
    assert [opened(never, one) for one in sealed[:3]] == texts[:3]
    with pytest.raises(SealError):
        opened(never, sealed[3])
    assert sealed == records(sizes, cipher=cipher, seals_a_key=6)[1]


def test_a_renewed_key_is_the_one_that_noise_says() -> None:
    """REKEY(k): the first 32 bytes of 32 zeros sealed under the last nonce (section 4.2)."""
    sealer = Sealer(KEY, seals_a_key=2)
    sealer.seal(b"x")
    aead = library().aead.AESGCM
    renewed = aead(KEY).encrypt(bytes(4) + b"\xff" * 8, bytes(32), None)[:32]
    record = sealer.seal(b"y")
    nonce = bytes(4) + (2).to_bytes(8, "big")
    assert aead(renewed).decrypt(nonce, record[:20], None) == (1).to_bytes(4, "little")


def test_uses_of_a_connection_have_keys_that_do_not_tell_of_each_other() -> None:
    seen = {KEYS.derive(label, salt).send for label in ("a", "b") for salt in (b"", b"s", b"t")}
    assert len(seen) == 6 and KEY not in seen
    assert KEYS.derive("a").send == THEIRS.derive("a").receive
    # RFC 5869, test case 3: neither salt nor info.
    expected = (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert derive(b"\x0b" * 22, b"", b"", 42).hex() == expected


def test_a_machine_without_the_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(MissingLibrary, match="pip install cryptography.*--no-encrypt"):
        Sealer(KEY)
    left, right = socket.socketpair()
    with left, right:
        Channel(left, "a node").send({"type": "plain needs none"})


# Channels


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    channels = Channel(left, "node 1", keys=KEYS), Channel(right, "node 2", keys=THEIRS)
    yield channels
    for channel in channels:
        channel.close()


def test_messages_of_all_sizes(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    texts = ["", "x", "y" * 20_000, "z" * 300_000]
    thread = threading.Thread(target=lambda: [left.send({"text": text}) for text in texts])
    thread.start()
    assert [right.receive(5)["text"] for _ in texts] == texts
    thread.join()
    right.send({"back": 1})
    assert left.receive(5) == {"back": 1}
    assert not right.poll()


def test_what_crosses_says_nothing() -> None:
    left, right = socket.socketpair()
    channel = Channel(left, "node 1", keys=KEYS)
    channel.send({"prompt": "a secret of mine"})
    heard = right.recv(4096)
    channel.close()
    right.close()
    for word in (b"secret", b"prompt", b"bwv1", b"{"):
        assert word not in heard or word == b"{"


def test_offers_keep_their_place(pair: tuple[Channel, Channel]) -> None:
    """Messages that may be lost are lost whole: what comes behind them still opens."""
    left, right = pair
    offered = 0
    for number in range(20_000):
        if not left.offer({"number": number, "fill": "x" * 500}):
            break
        offered += 1
    assert 0 < offered < 20_000
    assert not left.offer({"number": -1})
    heard = []
    while right.poll():
        heard.append(right.receive(1)["number"])
    assert left.offer({"number": -2}) or left.offer({"number": -2})
    left.send({"number": -3})
    while not heard or heard[-1] != -3:
        heard.append(right.receive(5)["number"])
    assert heard[:offered] == list(range(offered))
    assert set(heard[offered:]) <= {-2, -3}


def test_a_channel_seals_from_a_message_on() -> None:
    left, right = socket.socketpair()
    one, other = Channel(left, "node 1"), Channel(right, "node 2")
    one.send({"plain": 1})
    one.seal(KEYS)
    one.send({"sealed": 2})
    assert other.receive(5) == {"plain": 1}
    other.seal(THEIRS)
    assert other.receive(5) == {"sealed": 2}
    one.close()
    with pytest.raises(ChannelClosed, match="node 2 closed the connection"):
        other.receive(5)
    other.close()


def test_a_plain_message_on_a_sealed_channel_is_none() -> None:
    left, right = socket.socketpair()
    plain, sealed = Channel(left, "node 1"), Channel(right, "node 2", keys=THEIRS)
    plain.send({"type": "shutdown", "fill": "x" * 100})
    with pytest.raises(ChannelTampered, match="node 2 was tampered with or is damaged"):
        sealed.receive(5)
    with pytest.raises(ChannelTampered):  # nothing sound can follow
        sealed.receive(5)
    plain.close()
    sealed.close()


def test_a_last_word_in_the_place_of_a_process_that_died() -> None:
    left, right = socket.socketpair()
    dead = Channel(left, "the controller", keys=KEYS)
    reader = Channel(right, "node 1", keys=THEIRS)
    dead.send({"type": "tokens"})
    worker = Channel(dead.detach(), "the controller", keys=KEYS.derive(LAST_WORD))
    worker.send({"type": "failed", "reason": "killed"})
    assert reader.receive(5) == {"type": "tokens"}
    assert reader.receive(5) == {"type": "failed", "reason": "killed"}
    worker.close()
    reader.close()


# Streams


def test_streams_carry_bytes_of_all_sizes() -> None:
    left, right = socket.socketpair()
    data = random.Random(1).randbytes(3_000_000)
    with Stream(left, KEYS) as sender, Stream(right, THEIRS) as receiver:
        thread = threading.Thread(target=lambda: (sender.send(data[:7]), sender.send(data[7:])))
        thread.start()
        sizes = [1, 6, 1000, 70_000, 1_000_000]
        got = b"".join(bytes(receiver.receive(size)) for size in sizes)
        got += bytes(receiver.receive(len(data) - len(got)))
        thread.join()
        assert got == data


def test_a_stream_that_is_changed_on_the_way_gives_nothing_of_it() -> None:
    left, right = socket.socketpair()
    record = bytearray(Sealer(KEY).seal(b"x" * 1000))
    record[500] ^= 1
    left.sendall(record)
    with Stream(right, THEIRS) as receiver, pytest.raises(TamperedError, match="tampered with"):
        receiver.receive(1)
    left.close()
