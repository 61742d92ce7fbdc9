"""The handshake of a connection: who is there, do both know the secret, do the versions agree.

Six messages, the connecting side first::

    hello         protocol version and nonce of the connector
    challenge     protocol version and nonce of the acceptor
    proof         the connector's proof
    introduction  the acceptor's Hello, and its proof
    introduction  the connector's Hello, and its proof
    verdict       "welcome" or "refused" with a reason, and the acceptor's proof

A proof covers all that was said before it and the message that carries it. Before the other side's
proof neither says more than the version of its protocol, so that a stranger learns nothing of
sessions, nodes, versions or addresses. An acceptor that cannot check the proof answers an unproved
"refused". Nothing is read past the verdict. Traffic after the handshake is neither encrypted nor
authenticated: whoever can alter packets on the way can alter it.

This module holds the connector's side; ``acceptance`` holds the other. Knows no queues and no
threads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from socket import socket as Socket
from typing import Any, NamedTuple

from bandweave.handshake.hello import (
    NO_NODE,
    Hello,
    mismatch,
    protocol_mismatch,
    read_hello,
    read_protocol,
)
from bandweave.handshake.secret import make_nonce
from bandweave.handshake.transcript import ACCEPTOR, CONNECTOR, Keys, Transcript
from bandweave.mesh.address import Address, format_address, resolve
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError
from bandweave.mesh.dial import dial
from bandweave.mesh.printable import printable
from bandweave.mesh.tcp_options import configure

ACCEPT_TIMEOUT = 5.0  # seconds that a stranger gets
MAX_UNPROVED_BYTES = 4096
SECRETS_DIFFER = "the cluster secrets differ; use the same token file on both"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

# The second version of the protocol refuses by its version only a hello that has these fields.
_FOR_SECOND_VERSION = {
    "purpose": "control",
    "node": NO_NODE,
    "session": "",
    "numerics": 0,
    "package": "",
    "address": "",
}


class HandshakeError(ConnectionError):
    """A connection that was refused, by either side, or never came about. Names the peer."""


class Unreachable(HandshakeError):
    """Nobody answered in time. ``cause``: what the last attempt met."""

    def __init__(self, sentence: str, cause: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class Unproved(HandshakeError):
    """The other side does not know the cluster secret."""


class Misfit(HandshakeError):
    """The other side, ``hello``, knows the secret but runs a version that does not fit."""

    def __init__(self, sentence: str, hello: Hello) -> None:
        super().__init__(sentence)
        self.hello = hello


class Secured(NamedTuple):
    """A connection on which both sides have proved the secret; ``hello`` is the other's."""

    socket: Socket
    hello: Hello
    keys: Keys


class _TryAgain(Exception):
    """An attempt that failed in a way that the next one may not."""


def first_message(kind: str, protocol: int) -> dict[str, Any]:
    """A hello or a challenge, with a fresh nonce."""
    return {"type": kind, "protocol": protocol, "nonce": make_nonce()}


def introduction(own: Hello) -> dict[str, Any]:
    """A Hello as a message, yet without its proof."""
    return {"type": "introduction", **asdict(own)}


def check_fields(message: Mapping[str, Any], peer: str) -> None:
    """``ChannelError`` for a message that holds more than texts and whole numbers: two sides could
    read others differently."""
    if not all(isinstance(value, (str, int)) for value in message.values()):
        raise ChannelError(f"{peer} does not keep to the handshake")


def connect(
    address: Address,
    secret: bytes,
    own: Hello,
    *,
    name: str | None = None,
    expect_node: int | None = None,
    any_interface: bool = False,
    timeout: float = 10.0,
) -> Secured:
    """The connector's side: tries until it works or ``timeout`` seconds have passed.

    Absent listeners, dropped connections and refusals that invite it are tried again; others raise
    at once. ``name`` is for errors. With ``expect_node`` the acceptor must be that node of
    ``own.session``. ``any_interface``: see ``resolve``. The socket is in blocking mode.
    ``HandshakeError`` names the peer and the last cause, ``Unreachable`` where time was up.
    """
    name = name or format_address(address)
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            sock = dial(resolve(address, deadline, any_interface=any_interface), deadline)
            made = _introduce(sock, secret, own, name, deadline)
            break
        except HandshakeError:
            raise
        except ValueError as error:
            raise HandshakeError(f"{name} cannot be reached: {error}") from error
        except (OSError, _TryAgain) as error:
            cause = getattr(error, "strerror", None) or str(error)
        if time.monotonic() + pause >= deadline:
            sentence = f"{name} could not be reached within {timeout:.3g} s: {cause}"
            raise Unreachable(sentence, cause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    theirs = made.hello
    if expect_node is not None and (theirs.node, theirs.session) != (expect_node, own.session):
        made.socket.close()
        raise HandshakeError(
            f"{name} is node {theirs.node} there, not node {expect_node} of this session; every "
            "node needs an address of its own"
        )
    return made


def _introduce(sock: Socket, secret: bytes, own: Hello, name: str, deadline: float) -> Secured:
    """One attempt on a connected socket."""
    channel = Channel(sock, name, max_message_bytes=MAX_UNPROVED_BYTES)
    try:
        configure(sock, own.purpose)
        transcript = Transcript(secret)
        _exchange_nonces(channel, transcript, own, deadline)
        _send(channel, deadline, transcript.prove(CONNECTOR, {"type": "proof"}))
        theirs = _read_introduction(channel, transcript, deadline)
        _send(channel, deadline, transcript.prove(CONNECTOR, introduction(own)))
        verdict = _receive(channel, None, deadline)
        if not transcript.verify(ACCEPTOR, verdict):
            raise HandshakeError(f"{name} does not keep to the handshake")
        reason = mismatch(own, theirs)
        if reason is not None:
            raise Misfit(f"{name} does not fit: {reason}", theirs)
        if verdict.get("type") == "welcome":
            return Secured(channel.detach(), theirs, transcript.keys(CONNECTOR))
        same = own.purpose == "control" and own.session and theirs.session == own.session
        if same and theirs.node != own.node:
            raise HandshakeError(
                f"{name} is the worker that is node {theirs.node} already; give every node a "
                "worker of its own"
            )
        if verdict.get("retry") is True:
            raise _TryAgain(printable(verdict.get("reason")))
        _raise_refused(name, verdict)
        raise HandshakeError(f"{name} does not keep to the handshake")
    except ChannelClosed:
        raise _TryAgain("it closed the connection") from None
    except ChannelError as error:
        raise HandshakeError(str(error)) from error
    finally:
        channel.close()


def _exchange_nonces(channel: Channel, transcript: Transcript, own: Hello, deadline: float) -> None:
    first = {**_FOR_SECOND_VERSION, **first_message("hello", own.protocol)}
    _send(channel, deadline, first)
    second = _receive(channel, "challenge", deadline)
    reason = protocol_mismatch(own.protocol, read_protocol(second, channel.peer))
    if reason is not None:
        raise HandshakeError(f"{channel.peer} does not fit: {reason}")
    if second["nonce"] == first["nonce"]:
        raise HandshakeError(f"{channel.peer} does not keep to the handshake")
    transcript.add(first)
    transcript.add(second)


def _read_introduction(channel: Channel, transcript: Transcript, deadline: float) -> Hello:
    message = _receive(channel, "introduction", deadline)
    if not transcript.verify(ACCEPTOR, message):
        raise Unproved(
            f"{channel.peer} does not know the cluster secret; use the same token file on both"
        )
    return read_hello(message, channel.peer)


def _send(channel: Channel, deadline: float, message: dict[str, Any]) -> None:
    channel.send(message, timeout=max(0.01, deadline - time.monotonic()))


def _receive(channel: Channel, kind: str | None, deadline: float) -> dict[str, Any]:
    try:
        message = channel.receive(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise TimeoutError("it says nothing") from None
    check_fields(message, channel.peer)
    if kind is None or message.get("type") == kind:
        return message
    _raise_refused(channel.peer, message)
    raise ChannelError(f"{channel.peer} does not keep to the handshake")


def _raise_refused(name: str, message: Mapping[str, Any]) -> None:
    if message.get("type") == "refused":
        raise HandshakeError(f"{name} refused: {printable(message.get('reason'))}")
