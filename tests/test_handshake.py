"""The plain handshake: what is proved, what is refused, and what nobody learns before a proof."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bandweave import NUMERICS_VERSION, __version__
from bandweave.handshake.handshake import HandshakeError, Misfit, Unproved, connect
from bandweave.handshake.hello import PROTOCOL_VERSION, Refusal
from bandweave.handshake.listener import Listener, mesh_only
from bandweave.handshake.secret import make_secret, prove
from bandweave.handshake.transcript import Transcript
from bandweave.mesh.address import bind
from bandweave.mesh.channel import Channel
from bandweave.run_options import MAX_NODES
from tests.helpers.connections import LOCAL, SECRET, hello, wait_until

OUR_WORDS = ("session-name", "far:1", __version__, "node", "numerics")


def test_both_sides_learn_of_each_other() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0, advertise="far:1") as listener:
        sock, theirs, _ = connect(listener.address, SECRET, hello(node=4), expect_node=0)
        with sock, listener.get_mesh("s", 4, 1).socket as accepted:
            assert theirs == hello(node=0, address="far:1")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() is None and accepted.gettimeout() is None
            accepted.sendall(b"data")
            assert sock.recv(4) == b"data"
        sock, _, _ = connect(listener.address, SECRET, hello(purpose="control", node=2))
        with sock:
            connection = listener.get_control(1)
            connection.socket.close()
            assert (connection.hello.purpose, connection.hello.node) == ("control", 2)


def test_data_may_follow_the_welcome_at_once() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:

        def answer() -> None:
            with listener.get_mesh("s", 1, 2).socket as sock:
                sock.sendall(bytes(100_000))

        thread = threading.Thread(target=answer)
        thread.start()
        sock, _, _ = connect(listener.address, SECRET, hello())
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


# What is said before a proof


def test_a_stranger_learns_the_version_of_the_protocol_and_no_more() -> None:
    """Neither by a hello nor by a proof that is none."""
    with Listener(LOCAL, SECRET, session="session-name", node=7, advertise="far:1") as listener:
        channel = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(channel):
            channel.send({"type": "hello", "protocol": PROTOCOL_VERSION, "nonce": "0" * 64})
            answer = channel.receive(2)
            assert set(answer) == {"type", "protocol", "nonce"}
            channel.send({"type": "proof", "proof": "0" * 64})
            refusal = channel.receive(2)
            assert set(refusal) == {"type", "reason"}
            assert not [word for word in OUR_WORDS if word in str((answer, refusal))]


def test_an_acceptor_learns_nothing_of_a_connector_before_its_own_proof() -> None:
    heard: list[dict[str, Any]] = []

    def listen(channel: Channel, first: dict[str, Any]) -> None:
        heard.append(first)
        channel.send(challenge())
        heard.append(channel.receive(2))

    sock, thread = fake_acceptor(listen)
    own = hello(session="session-name", node=5, address="far:1")
    with sock, pytest.raises(HandshakeError):
        connect(sock.getsockname(), SECRET, own, timeout=1)
    thread.join()
    assert set(heard[1]) == {"type", "proof"}
    assert not [word for word in OUR_WORDS[:3] if word in str(heard)]
    assert heard[0]["node"] == -1  # the same for everybody


# Acceptors that are none


def fake_acceptor(
    answer: Callable[[Channel, dict[str, Any]], None],
) -> tuple[Any, threading.Thread]:
    """A listening socket, and a thread that answers one hello there as it likes."""
    sock = bind(LOCAL)

    def run() -> None:
        channel = Channel(sock.accept()[0], "a connector")
        with contextlib.closing(channel), contextlib.suppress(OSError):
            answer(channel, channel.receive(2))
            channel.receive(0.5)

    thread = threading.Thread(target=run)
    thread.start()
    return sock, thread


def challenge(nonce: str = "0" * 64, **more: Any) -> dict[str, Any]:
    return {"type": "challenge", "protocol": PROTOCOL_VERSION, "nonce": nonce, **more}


def introduction(**values: Any) -> dict[str, Any]:
    return {"type": "introduction", **vars(hello(node=0)), **values}


def reflect_proof(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge())
    channel.send({**introduction(), "proof": channel.receive(2)["proof"]})


def prove_wrongly(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge())
    channel.receive(2)
    channel.send({**introduction(), "proof": prove(make_secret(), "acceptor", ())})


def prove_another_introduction(channel: Channel, first: dict[str, Any]) -> None:
    transcript = Transcript(SECRET)
    transcript.add(first)
    transcript.add(challenge())
    channel.send(challenge())
    assert transcript.verify("connector", channel.receive(2))
    proved = transcript.prove("acceptor", introduction())
    channel.send({**proved, "numerics": NUMERICS_VERSION + 1})


@pytest.mark.parametrize("answer", [reflect_proof, prove_wrongly, prove_another_introduction])
def test_an_acceptor_without_proof_is_refused(answer: Any) -> None:
    sock, thread = fake_acceptor(answer)
    with sock, pytest.raises(Unproved, match="node 0 does not know the cluster secret"):
        connect(sock.getsockname(), SECRET, hello(), name="node 0", timeout=3)
    thread.join()


def alter_verdict(channel: Channel, first: dict[str, Any]) -> None:
    transcript = Transcript(SECRET)
    transcript.add(first)
    transcript.add(challenge())
    channel.send(challenge())
    transcript.verify("connector", channel.receive(2))
    channel.send(transcript.prove("acceptor", introduction()))
    assert transcript.verify("connector", channel.receive(2))
    proved = transcript.prove("acceptor", {"type": "refused", "reason": "no", "retry": False})
    channel.send({"type": "welcome", "proof": proved["proof"]})


def reflect_nonce(channel: Channel, first: dict[str, Any]) -> None:
    channel.send(challenge(first["nonce"]))


@pytest.mark.parametrize("answer", [alter_verdict, reflect_nonce])
def test_what_an_acceptor_may_not_say(answer: Any) -> None:
    sock, thread = fake_acceptor(answer)
    with sock, pytest.raises(HandshakeError, match="does not keep to the handshake"):
        connect(sock.getsockname(), SECRET, hello(), timeout=3)
    thread.join()


def test_words_of_a_stranger_are_made_fit_for_a_terminal() -> None:
    def refuse(channel: Channel, first: dict[str, Any]) -> None:
        reason = "\x1b[2J\x1b]0;owned\x07gone\u202e \nsecond line" + "x" * 5000
        channel.send({"type": "refused", "reason": reason[:3000]})

    sock, thread = fake_acceptor(refuse)
    with sock, pytest.raises(HandshakeError) as caught:
        connect(sock.getsockname(), SECRET, hello(), name="node 0", timeout=3)
    thread.join()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert "gone" in str(caught.value)


def relay(listener: Listener, said: list[dict[str, Any]]) -> Any:
    """Passes a whole handshake on, and keeps what the connector says."""

    def run(channel: Channel, first: dict[str, Any]) -> None:
        onward = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(onward):
            said.append(first)
            onward.send(first)
            for _ in range(2):
                channel.send(onward.receive(2))
                said.append(channel.receive(2))
                onward.send(said[-1])
            channel.send(onward.receive(2))

    return run


def test_replay_is_refused() -> None:
    """What a connector said in a good handshake opens nothing when said again."""
    log: list[str] = []
    said: list[dict[str, Any]] = []
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        sock, thread = fake_acceptor(relay(listener, said))
        with sock:
            connect(sock.getsockname(), SECRET, hello(), timeout=3)[0].close()
        thread.join()
        listener.get_mesh("s", 1, 1).socket.close()
        again = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(again):
            again.send(said[0])
            assert again.receive(2)["type"] == "challenge"
            again.send(said[1])
            assert again.receive(2)["type"] == "refused"
        assert wait_until(lambda: any("secrets differ" in line for line in log))
        with pytest.raises(TimeoutError):
            listener.get_mesh("s", 1, 0.01)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_message_that_is_altered_on_the_way_opens_nothing(at: int) -> None:
    """Each of the connector's three, in a handshake between two that know the secret."""
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:

        def alter(channel: Channel, first: dict[str, Any]) -> None:
            onward = Channel(socket.create_connection(listener.address), "the listener")
            with contextlib.closing(onward):
                onward.send({**first, "more": 1} if at == 0 else first)
                for step in (1, 2):
                    channel.send(onward.receive(2))
                    message = channel.receive(2)
                    onward.send({**message, "more": 1} if at == step else message)
                channel.send(onward.receive(2))

        sock, thread = fake_acceptor(alter)
        with sock, pytest.raises(HandshakeError):
            connect(sock.getsockname(), SECRET, hello(), timeout=1)
        thread.join()
        with pytest.raises(TimeoutError):
            listener.get_mesh("s", 1, 0.01)


# Versions


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


@pytest.mark.parametrize("there", [2, PROTOCOL_VERSION + 1])
def test_protocol_versions_that_differ_are_refused_on_both_sides(there: int) -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", log=log.append) as listener:
        sentence = f"refused: protocol version {there} here, {PROTOCOL_VERSION} there: install"
        with pytest.raises(HandshakeError, match=sentence):
            connect(listener.address, SECRET, hello(protocol=there))
        assert wait_until(lambda: bool(log))
        assert f"protocol version {PROTOCOL_VERSION} here, {there} there" in log[0]


def test_an_acceptor_of_another_protocol_is_named() -> None:
    def answer(channel: Channel, first: dict[str, Any]) -> None:
        channel.send({**challenge(), "protocol": PROTOCOL_VERSION + 1})

    sock, thread = fake_acceptor(answer)
    sentence = f"protocol version {PROTOCOL_VERSION} here, {PROTOCOL_VERSION + 1} there"
    with sock, pytest.raises(HandshakeError, match=sentence):
        connect(sock.getsockname(), SECRET, hello(), timeout=3)
    thread.join()


def test_the_second_version_can_read_our_hello_well_enough_to_refuse_it() -> None:
    """It looked for these fields, of these types and lengths, before it compared versions."""
    heard: list[dict[str, Any]] = []
    sock, thread = fake_acceptor(lambda channel, first: heard.append(first))
    with sock, pytest.raises(HandshakeError):
        connect(sock.getsockname(), SECRET, hello(), timeout=0.1)
    thread.join()
    (first,) = heard
    for field, kind, most in (
        ("purpose", str, 16), ("node", int, 1 << 31), ("session", str, 64),
        ("protocol", int, 1 << 31), ("numerics", int, 1 << 31), ("package", str, 64),
        ("address", str, 256), ("nonce", str, 64),
    ):  # fmt: skip
        value = first[field]
        assert type(value) is kind
        assert (len(value) if isinstance(value, str) else abs(value)) <= most
    assert len(first["nonce"]) == 64 and first["purpose"] in ("control", "mesh")
    assert first["protocol"] == PROTOCOL_VERSION != 2


# Refusals


def test_refusals_reach_the_connector_with_their_reason() -> None:
    with Listener(LOCAL, SECRET, admit=mesh_only("other", 0)) as listener:
        with pytest.raises(HandshakeError, match="refused: it serves another session"):
            connect(listener.address, SECRET, hello())
        with pytest.raises(HandshakeError, match="refused: it is a node, which has its controller"):
            connect(listener.address, SECRET, hello(purpose="control"))
    with (
        Listener(LOCAL, SECRET, admit=mesh_only("s", 3)) as listener,
        pytest.raises(HandshakeError, match="refused: node 3 does not connect to node 3"),
    ):
        connect(listener.address, SECRET, hello(node=3))


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", MAX_NODES),
        ("node", -2),
        ("node", True),
        ("node", "1"),
        ("session", "x" * 65),
        ("session", 5),
        ("purpose", "both"),
        ("numerics", -1),
        ("numerics", 10**400),
        ("package", "x" * 65),
        ("address", "x" * 257),
    ],
)
def test_a_proved_hello_with_a_field_out_of_bounds_is_refused(field: str, value: Any) -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        with pytest.raises(HandshakeError):
            connect(listener.address, SECRET, hello(**{field: value}), timeout=0.1)
        assert wait_until(lambda: bool(log))
        assert f"does not keep to the handshake ({field})" in log[0]
        connect(listener.address, SECRET, hello())[0].close()


def test_proofs_are_over_texts_and_whole_numbers_only() -> None:
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:
        channel = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(channel), pytest.raises(OSError, match="closed the connection"):
            first = {"type": "hello", "protocol": PROTOCOL_VERSION, "nonce": "0" * 64}
            channel.send({**first, "more": json.loads("1e999")})
            channel.receive(2)
