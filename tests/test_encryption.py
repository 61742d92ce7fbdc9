"""Encrypted connections: what both sides learn, who is refused, and what a stranger learns."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Any

import pytest

from bandweave import NUMERICS_VERSION, __version__
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER, stays_here
from bandweave.handshake.handshake import HandshakeError, Misfit, Unproved, connect
from bandweave.handshake.handshake_messages import (
    prologue,
    read_sealed,
    sealed_message,
    traffic_keys,
)
from bandweave.handshake.hello import PROTOCOL_VERSION, Refusal
from bandweave.handshake.listener import Listener, mesh_only
from bandweave.handshake.noise import Noise
from bandweave.handshake.rendezvous import Meeting, connect_mesh
from bandweave.handshake.secret import make_secret, shared_key
from bandweave.mesh.channel import Channel
from bandweave.mesh.sealing import Keys
from bandweave.run_options import MAX_NODES
from tests.helpers.connections import LOCAL, SECRET, hello, wait_until
from tests.helpers.tampering import Proxy
from tests.test_handshake import fake_acceptor

OUR_WORDS = ("session-name", "far:1", __version__, "numerics", "purpose")


def sealed(address: Any, secret: bytes = SECRET, own: Any = None, **options: Any) -> Any:
    return connect(address, secret, own or hello(), encryption=ALWAYS, **options)


def initiator(secret: bytes = SECRET) -> Noise:
    return Noise(shared_key(secret), prologue(PROTOCOL_VERSION), initiator=True)


def test_both_sides_learn_of_each_other_and_get_the_same_keys() -> None:
    seen: set[bytes] = set()
    with Listener(LOCAL, SECRET, session="s", node=0, advertise="far:1") as listener:
        for _ in range(3):
            made = sealed(listener.address, own=hello(node=4), expect_node=0)
            arrived = listener.get_mesh("s", 4, 1)
            with made.socket, arrived.socket:
                assert made.hello == hello(node=0, address="far:1")
                assert made.socket.gettimeout() is None and arrived.socket.gettimeout() is None
                assert arrived.keys is not None
                assert arrived.keys == Keys(send=made.keys.receive, receive=made.keys.send)
                assert made.keys.send.hex() not in repr(made)
                seen |= {made.keys.send, made.keys.receive}
        made = sealed(listener.address, own=hello(purpose="control", node=2))
        there = listener.get_control(1)
        ours, theirs = made.channel("node 2"), Channel(there.socket, "us", keys=there.keys)
        ours.send({"type": "hold"})
        assert theirs.receive(1) == {"type": "hold"}
        ours.close()
        theirs.close()
    assert len(seen) == 6


def test_a_wrong_secret_is_refused_and_logged_once() -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", log=log.append) as listener:
        started = time.monotonic()
        with pytest.raises(HandshakeError, match="node 0 refused: the cluster secrets differ"):
            sealed(listener.address, make_secret(), name="node 0")
        assert time.monotonic() - started < 1
        assert wait_until(lambda: bool(log))
        assert re.fullmatch(r"refused 127\.0\.0\.1:\d+: the cluster secrets differ.*", log[0])
        with pytest.raises(TimeoutError):
            listener.get_mesh("s", 1, 0.05)
        assert len(log) == 1


@pytest.mark.parametrize("encryption", [NEVER, ALWAYS])
def test_nobody_who_listens_learns_who_talks(encryption: str) -> None:
    """Of an encrypted connection; the same words cross a plain one."""
    heard: list[bytes] = []

    def overhear(piece: bytes, forward: bool) -> tuple[bytes, bytes, bool]:
        heard.append(piece)
        return piece, b"", False

    own = hello(session="session-name", node=9)
    with (
        Listener(LOCAL, SECRET, session="session-name", node=7, advertise="far:1") as listener,
        Proxy(listener.address, overhear) as proxy,
    ):
        connect(proxy.address, SECRET, own, encryption=encryption).socket.close()
    said = b"".join(heard).replace(b'"purpose":"control","node":-1', b"")  # the same for everybody
    found = [word for word in OUR_WORDS if word != "numerics" and word.encode() in said]
    assert len(heard) >= 4
    assert found == ([] if encryption == ALWAYS else [*OUR_WORDS[:2], "purpose"]) or (
        encryption == NEVER and {"session-name", "far:1"} <= set(found)
    )


def test_a_stranger_elicits_the_version_of_the_protocol_and_no_more() -> None:
    with Listener(LOCAL, SECRET, session="session-name", node=7, advertise="far:1") as listener:
        for message in (
            sealed_message("hello", PROTOCOL_VERSION, initiator(make_secret()), hello()),
            {"type": "hello", "protocol": PROTOCOL_VERSION, "nonce": "0" * 64, "sealed": "00" * 99},
            {"type": "hello", "protocol": 5, "nonce": "0" * 64, "sealed": "00" * 99},
        ):
            channel = Channel(socket.create_connection(listener.address), "the listener")
            with contextlib.closing(channel):
                channel.send(message)
                refusal = channel.receive(2)
            assert set(refusal) == {"type", "reason"}
            assert not [word for word in OUR_WORDS if word in str(refusal)]


def test_who_knows_the_secret_but_replays_gets_nothing() -> None:
    """A recorded handshake, said again: no session, no Hello, one line in the log."""
    log: list[str] = []
    said: list[bytes] = []

    def record(piece: bytes, forward: bool) -> tuple[bytes, bytes, bool]:
        if forward:
            said.append(piece)
        return piece, b"", False

    admitted: list[Any] = []

    def admit(theirs: Any) -> Refusal | None:
        admitted.append(theirs)
        return None

    with Listener(LOCAL, SECRET, session="s", node=0, admit=admit, log=log.append) as listener:
        with Proxy(listener.address, record) as proxy:
            sealed(proxy.address).socket.close()
        listener.get_mesh("s", 1, 1).socket.close()
        assert len(admitted) == 1 and not log
        with socket.create_connection(listener.address) as again:
            again.sendall(said[0])
            answer = again.recv(4096)
            assert b"challenge" in answer and b"node" not in answer
            for piece in said[1:]:
                again.sendall(piece)
            again.settimeout(5)
            assert again.recv(4096) == b""
        assert wait_until(lambda: bool(log))
        assert "was tampered with or is damaged" in log[0]
        with pytest.raises(TimeoutError):
            listener.get_mesh("s", 1, 0.05)
        assert len(admitted) == 1 and len(log) == 1


def test_a_hello_counts_for_nothing_before_it_is_confirmed() -> None:
    admitted: list[Any] = []

    def admit(theirs: Any) -> Refusal | None:
        admitted.append(theirs)
        return None

    with Listener(LOCAL, SECRET, session="s", node=0, admit=admit, timeout=0.2) as listener:
        channel = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(channel):
            channel.send(sealed_message("hello", PROTOCOL_VERSION, initiator(), hello()))
            assert channel.receive(2)["type"] == "challenge"
            with pytest.raises(OSError, match="closed the connection"):
                channel.receive(2)
        assert not admitted


def test_acceptors_that_do_not_know_the_secret_are_refused() -> None:
    def guess(channel: Channel, first: dict[str, Any]) -> None:
        other = Noise(shared_key(make_secret()), prologue(PROTOCOL_VERSION), initiator=False)
        other._theirs = other._own.public_key()
        channel.send(sealed_message("challenge", PROTOCOL_VERSION, other, hello()))

    def reflect(channel: Channel, first: dict[str, Any]) -> None:
        channel.send({**first, "type": "challenge"})

    for answer in (guess, reflect):
        sock, thread = fake_acceptor(answer)
        with sock, pytest.raises(Unproved, match="node 0 does not know the cluster secret"):
            sealed(sock.getsockname(), name="node 0", timeout=3)
        thread.join()


def test_an_acceptor_cannot_make_a_connection_plain() -> None:
    def deny(channel: Channel, first: dict[str, Any]) -> None:
        channel.send({"type": "challenge", "protocol": PROTOCOL_VERSION, "nonce": "0" * 64})

    sock, thread = fake_acceptor(deny)
    with sock, pytest.raises(HandshakeError, match="does not keep to the handshake"):
        sealed(sock.getsockname(), timeout=3)
    thread.join()


def test_versions_that_differ_are_refused_on_both_sides() -> None:
    log: list[str] = []
    there = NUMERICS_VERSION + 1
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        sentence = f"numerics version {there} here, {NUMERICS_VERSION} there: install the same"
        with pytest.raises(Misfit, match=f"node 0 does not fit: {sentence}"):
            sealed(listener.address, own=hello(numerics=there), name="node 0")
        with pytest.raises(HandshakeError, match=f"node 1 does not fit.*{there} there"):
            listener.get_mesh("s", 1, 2)
        assert wait_until(lambda: bool(log))
        sentence = f"refused: protocol version 5 here, {PROTOCOL_VERSION} there: install"
        with pytest.raises(HandshakeError, match=sentence):
            sealed(listener.address, own=hello(protocol=5))


def test_refusals_reach_the_connector_with_their_reason() -> None:
    with Listener(LOCAL, SECRET, admit=mesh_only("other", 0)) as listener:
        with pytest.raises(HandshakeError, match="refused: it serves another session"):
            sealed(listener.address)
        with pytest.raises(HandshakeError, match="refused: it is a node, which has its controller"):
            sealed(listener.address, own=hello(purpose="control"))
    refusals = [Refusal(reason="not yet", retry=True)] * 2
    with Listener(LOCAL, SECRET, admit=lambda _: refusals.pop() if refusals else None) as listener:
        sealed(listener.address).socket.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("node", MAX_NODES), ("node", True), ("session", "x" * 65), ("session", 5),
     ("purpose", "both"), ("numerics", 10**400), ("network", "x" * 65), ("network", 1)],
)  # fmt: skip
def test_a_hello_with_a_field_out_of_bounds_is_refused(field: str, value: Any) -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        with pytest.raises(HandshakeError):
            sealed(listener.address, own=hello(**{field: value}), timeout=0.1)
        assert wait_until(lambda: bool(log))
        assert f"does not keep to the handshake ({field})" in log[0]
        sealed(listener.address).socket.close()


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"null", b"[" * 1500, b'{"node": NaN}'])
def test_a_sealed_text_that_is_no_hello_is_refused(text: bytes) -> None:
    log: list[str] = []
    with Listener(LOCAL, SECRET, session="s", node=0, log=log.append) as listener:
        noise = initiator()
        message = noise.write(text)
        public, rest = message[:32].hex(), message[32:].hex()
        channel = Channel(socket.create_connection(listener.address), "the listener")
        with contextlib.closing(channel), pytest.raises(OSError, match="closed the connection"):
            first = {"type": "hello", "protocol": PROTOCOL_VERSION, "nonce": public, "sealed": rest}
            channel.send(first)
            channel.receive(2)
        assert wait_until(lambda: bool(log)) and "does not keep to the handshake" in log[0]


# What is encrypted


def test_what_stays_on_a_machine_is_plain_and_a_tunnel_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loopback alone says little: a tunnel begins there, and whoever is at its end sees another
    network."""
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:
        for asked, encrypted in ((AUTO, False), (ALWAYS, True), (NEVER, False)):
            made = connect(listener.address, SECRET, hello(), encryption=asked)
            arrived = listener.get_mesh("s", 1, 1)
            assert arrived.local and (made.keys is not None) == encrypted
            assert (arrived.keys is not None) == encrypted
            made.socket.close()
            arrived.socket.close()
    with Listener(LOCAL, SECRET, session="s", node=0) as listener:
        listener._own = hello(node=0, network="f" * 32)
        made = connect(listener.address, SECRET, hello(), encryption=AUTO)
        assert made.keys is not None
        arrived = listener.get_mesh("s", 1, 1)
        assert arrived.keys is not None
        made.socket.close()
        arrived.socket.close()
    left, right = socket.socketpair()
    with left, right:
        assert not stays_here(left, hello().network)
    with socket.socket() as unconnected:
        assert not stays_here(unconnected, hello().network)


def test_a_worker_may_insist() -> None:
    """On encryption of what leaves its machine; what stays there may be plain."""
    from bandweave.handshake.reception import Reception
    from bandweave.mesh.address import bind

    with bind(LOCAL) as listening:
        got: list[Any] = []
        reception = Reception(
            listening, SECRET, own=lambda: hello(node=0), admit=lambda theirs: None,
            deliver=got.append, encrypted=True,
        )  # fmt: skip
        try:
            address = listening.getsockname()
            connect(address, SECRET, hello(), encryption=NEVER).socket.close()
            sealed(address, own=hello(network="e" * 32)).socket.close()
            with pytest.raises(HandshakeError, match="encrypted connections only.*--no-encrypt"):
                connect(address, SECRET, hello(network="e" * 32), encryption=NEVER)
            assert wait_until(lambda: len(got) == 2)
        finally:
            reception.stop()
        for connection in got:
            connection.socket.close()


# Links are bound to the session


def meet(*meetings: Meeting) -> list[Any]:
    """Two nodes that were told these things; what each has of the other, or its error."""
    results: list[Any] = [None, None]
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener(LOCAL, SECRET, session="s", node=node)) for node in (0, 1)
        ]
        addresses = {node: one.address for node, one in enumerate(listeners)}

        def join(node: int) -> None:
            try:
                results[node] = connect_mesh(
                    node, addresses, listeners[node], SECRET, "s", 2, meeting=meetings[node]
                )[1 - node]
            except HandshakeError as error:
                results[node] = error

        threads = [threading.Thread(target=join, args=(node,)) for node in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result in results:
        if not isinstance(result, Exception):
            result.socket.close()
    return results


def test_nodes_of_one_session_have_keys_for_their_link() -> None:
    meeting = Meeting(encryption=ALWAYS, key=b"k" * 32)
    one, other = meet(meeting, meeting)
    assert one.keys == Keys(send=other.keys.receive, receive=other.keys.send)


def test_who_has_not_the_controllers_key_has_no_link() -> None:
    """Though it knows the cluster's secret and the session's name."""
    one, _ = meet(
        Meeting(encryption=ALWAYS, key=b"k" * 32), Meeting(encryption=ALWAYS, key=b"x" * 32)
    )
    assert isinstance(one, HandshakeError)
    assert "it does not have the controller's key" in str(one)


def test_a_plain_link_is_refused_where_an_encrypted_one_is_due() -> None:
    one, _ = meet(Meeting(encryption=ALWAYS, key=b"k" * 32), Meeting(encryption=NEVER))
    assert isinstance(one, HandshakeError) and "without encryption" in str(one)


def test_keys_of_the_handshake_are_not_those_of_the_traffic() -> None:
    noise = initiator()
    responder = Noise(shared_key(SECRET), prologue(PROTOCOL_VERSION), initiator=False)
    message = sealed_message("hello", PROTOCOL_VERSION, noise, hello())
    assert read_sealed(message, responder, "x") == hello()
    answer = sealed_message("challenge", PROTOCOL_VERSION, responder, hello(node=0))
    assert read_sealed(answer, noise, "x") == hello(node=0)
    ours, traffic = traffic_keys(noise)
    assert len({ours.send, ours.receive, traffic.send, traffic.receive}) == 4
