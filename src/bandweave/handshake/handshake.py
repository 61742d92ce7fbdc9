"""The handshake of a connection: who is there, do both know the secret, do the versions agree.

Encrypted connections (``noise``) have four messages, the connecting side first::

    hello      protocol version, the connector's ephemeral key; sealed: its Hello
    challenge  protocol version, the acceptor's ephemeral key; sealed: its Hello
    confirm    from here on all is sealed by keys that only these two have
    verdict    "welcome" or "refused" with a reason

An acceptor does nothing that a hello asks for before ``confirm``: a hello may be a recording, and
only who made its ephemeral key can confirm. Plain ones, within one machine or where a command asks
for it, have six::

    hello         protocol version and nonce of the connector
    challenge     protocol version and nonce of the acceptor
    proof         the connector's proof
    introduction  the acceptor's Hello, and its proof
    introduction  the connector's Hello, and its proof
    verdict       "welcome" or "refused" with a reason, and the acceptor's proof

A proof covers all that was said before it and the message that carries it. Either way a stranger
learns nothing of sessions, nodes, versions or addresses, only the version of the protocol. An
acceptor that cannot check what came answers an unproved "refused". Nothing is read past the
verdict. What follows on an encrypted connection is sealed by the keys that come of the handshake;
on a plain one nothing is.

The connector decides which it is, so that nobody on the way can make an encrypted connection a
plain one. This module holds the connector's side; ``acceptance`` holds the other. Knows no queues
and no threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from socket import socket as Socket
from typing import Any

from bandweave.handshake.connection import Secured
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER, over_loopback, stays_here
from bandweave.handshake.handshake_messages import (
    check_fields,
    first_message,
    introduction,
    prologue,
    read_sealed,
    sealed_message,
    traffic_keys,
)
from bandweave.handshake.hello import (
    NO_NODE,
    Hello,
    mismatch,
    protocol_mismatch,
    read_hello,
    read_protocol,
)
from bandweave.handshake.noise import Noise, NoiseError
from bandweave.handshake.secret import shared_key
from bandweave.handshake.transcript import ACCEPTOR, CONNECTOR, Transcript
from bandweave.mesh.address import Address, format_address, resolve
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError
from bandweave.mesh.dial import dial
from bandweave.mesh.printable import printable
from bandweave.mesh.sealing import Keys
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


class _TryAgain(Exception):
    """An attempt that failed in a way that the next one may not."""


class _Elsewhere(Exception):
    """An address of loopback that leads to another machine."""


def connect(
    address: Address,
    secret: bytes,
    own: Hello,
    *,
    name: str | None = None,
    expect_node: int | None = None,
    any_interface: bool = False,
    timeout: float = 10.0,
    encryption: str = AUTO,
) -> Secured:
    """The connector's side: tries until it works or ``timeout`` seconds have passed.

    ``encryption``: always, never, or (auto) unless the connection stays on this machine.

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
            made = _introduce(sock, secret, own, name, deadline, encryption)
            break
        except HandshakeError:
            raise
        except _Elsewhere:
            encryption = ALWAYS
            continue
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


def _introduce(
    sock: Socket, secret: bytes, own: Hello, name: str, deadline: float, encryption: str
) -> Secured:
    """One attempt on a connected socket."""
    plain = encryption == NEVER or (encryption == AUTO and over_loopback(sock))
    channel = Channel(sock, name, max_message_bytes=MAX_UNPROVED_BYTES)
    try:
        configure(sock, own.purpose)
        if plain:
            theirs, verdict = _prove(
                channel, secret, own, deadline,
                lambda network: encryption == NEVER or stays_here(sock, network),
            )  # fmt: skip
            keys = None
        else:
            theirs, verdict, keys = _agree(channel, secret, own, deadline)
        reason = mismatch(own, theirs)
        if reason is not None:
            raise Misfit(f"{name} does not fit: {reason}", theirs)
        if verdict.get("type") == "welcome":
            return Secured(channel.detach(), theirs, keys)
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


def _agree(
    channel: Channel, secret: bytes, own: Hello, deadline: float
) -> tuple[Hello, dict[str, Any], Keys]:
    """An encrypted handshake: the acceptor's Hello, its verdict, and the keys of what follows."""
    noise = Noise(shared_key(secret), prologue(own.protocol), initiator=True)
    first = {**_FOR_SECOND_VERSION, **sealed_message("hello", own.protocol, noise, own)}
    _send(channel, deadline, first)
    second = _receive(channel, "challenge", deadline)
    _check_protocol(channel, own, second)
    if not isinstance(second.get("sealed"), str):
        raise HandshakeError(f"{channel.peer} does not keep to the handshake")
    try:
        theirs = read_sealed(second, noise, channel.peer)
    except NoiseError:
        raise _unproved(channel.peer) from None
    ours, keys = traffic_keys(noise)
    channel.seal(ours)
    _send(channel, deadline, {"type": "confirm"})
    return theirs, _receive(channel, None, deadline), keys


def _prove(
    channel: Channel,
    secret: bytes,
    own: Hello,
    deadline: float,
    may_be_plain: Callable[[str], bool],
) -> tuple[Hello, dict[str, Any]]:
    """A plain handshake: the acceptor's Hello, and its verdict. ``_Elsewhere`` where the network
    that the acceptor sees may not be talked to plainly."""
    transcript = Transcript(secret)
    _exchange_nonces(channel, transcript, own, deadline)
    _send(channel, deadline, transcript.prove(CONNECTOR, {"type": "proof"}))
    theirs = _read_introduction(channel, transcript, deadline)
    if not may_be_plain(theirs.network):
        raise _Elsewhere
    _send(channel, deadline, transcript.prove(CONNECTOR, introduction(own)))
    verdict = _receive(channel, None, deadline)
    if not transcript.verify(ACCEPTOR, verdict):
        raise HandshakeError(f"{channel.peer} does not keep to the handshake")
    return theirs, verdict


def _exchange_nonces(channel: Channel, transcript: Transcript, own: Hello, deadline: float) -> None:
    first = {**_FOR_SECOND_VERSION, **first_message("hello", own.protocol)}
    _send(channel, deadline, first)
    second = _receive(channel, "challenge", deadline)
    _check_protocol(channel, own, second)
    if second["nonce"] == first["nonce"]:
        raise HandshakeError(f"{channel.peer} does not keep to the handshake")
    transcript.add(first)
    transcript.add(second)


def _check_protocol(channel: Channel, own: Hello, second: Mapping[str, Any]) -> None:
    reason = protocol_mismatch(own.protocol, read_protocol(second, channel.peer))
    if reason is not None:
        raise HandshakeError(f"{channel.peer} does not fit: {reason}")


def _read_introduction(channel: Channel, transcript: Transcript, deadline: float) -> Hello:
    message = _receive(channel, "introduction", deadline)
    if not transcript.verify(ACCEPTOR, message):
        raise _unproved(channel.peer)
    return read_hello(message, channel.peer)


def _unproved(name: str) -> Unproved:
    return Unproved(f"{name} does not know the cluster secret; use the same token file on both")


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
