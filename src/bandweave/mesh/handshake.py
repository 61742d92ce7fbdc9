"""The handshake of a connection: who is there, do both know the secret, do the versions agree.

Four messages, the connecting side first::

    hello      nonce and Hello of the connector
    challenge  nonce and Hello of the acceptor
    proof      the connector's proof over both messages above
    verdict    "welcome" or "refused" with a reason, and the acceptor's proof over all of it

The connector proves first, so a stranger learns nothing that depends on the secret. An acceptor
that cannot check the proof answers an unproved "refused". Nothing is read past the verdict. Traffic
after the handshake is neither encrypted nor authenticated: whoever can alter packets on the way can
alter it. Knows no queues and no threads.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from bandweave.mesh.address import Address, format_address, resolve
from bandweave.mesh.channel import Channel, ChannelClosed, ChannelError
from bandweave.mesh.hello import PROTOCOL_VERSION, Hello, Refusal, mismatch, printable, read_hello
from bandweave.mesh.secret import make_nonce, prove, verify

ACCEPT_TIMEOUT = 5.0  # seconds that a stranger gets
MAX_UNPROVED_BYTES = 4096
_DIAL_SECONDS = 2.0  # for one address of a host that may have several
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_TCP_RXT_CONNDROPTIME = 0x80  # of macOS: seconds of retransmission before the end
_CONNECTOR, _ACCEPTOR = "connector", "acceptor"


class HandshakeError(ConnectionError):
    """A connection that was refused, by either side, or never came about. Names the peer."""


class Unreachable(HandshakeError):
    """Nobody answered in time."""


class Unproved(HandshakeError):
    """The other side does not know the cluster secret."""


class Misfit(HandshakeError):
    """The other side, ``hello``, knows the secret but runs a version that does not fit."""

    def __init__(self, sentence: str, hello: Hello) -> None:
        super().__init__(sentence)
        self.hello = hello


class _TryAgain(Exception):
    """An attempt that failed in a way that the next one may not."""


def configure(sock: socket.socket, purpose: str) -> None:
    """Sends small messages at once, and notices within about 15 s a machine that has vanished.

    On a mesh connection that holds for an idle one only: a node that computes may well leave data
    untouched for longer, and the exchange watches its progress.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    for name, value in ((idle, 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if purpose == "control":  # keepalive is silent while sent data waits to be acknowledged
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)
        elif sys.platform == "darwin":
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RXT_CONNDROPTIME, 15)


def accept(
    sock: socket.socket,
    secret: bytes,
    own: Hello,
    admit: Callable[[Hello], Refusal | None],
    *,
    peer: str,
    timeout: float = ACCEPT_TIMEOUT,
) -> tuple[socket.socket, Hello]:
    """The acceptor's side, in at most ``timeout`` seconds in all; takes the socket over.

    ``own.purpose`` is replaced by the connector's. ``admit`` sees only proved Hellos of fitting
    versions. Returns the socket in blocking mode. ``HandshakeError`` otherwise (``Misfit`` where
    versions differ), and the socket is closed.
    """
    deadline = time.monotonic() + timeout
    channel = _unproved_channel(sock, peer)
    try:
        first = _receive(channel, "hello", deadline)
        theirs = read_hello(first, peer)
        own = replace(own, purpose=theirs.purpose)
        configure(sock, theirs.purpose)
        if theirs.protocol != PROTOCOL_VERSION:
            _send(channel, deadline, {"type": "refused", "reason": mismatch(theirs, own)})
            raise HandshakeError(f"refused {peer}: {mismatch(own, theirs)}")
        second = {"type": "challenge", "nonce": make_nonce(), **asdict(own)}
        _send(channel, deadline, second)
        heard = (_canonical(first), _canonical(second))
        proof = _receive(channel, "proof", deadline).get("proof")
        if not verify(secret, _CONNECTOR, heard, proof):
            reason = "the cluster secrets differ; use the same token file on both"
            _send(channel, deadline, {"type": "refused", "reason": reason})
            raise Unproved(f"refused {peer}: {reason}")
        reason = mismatch(own, theirs)
        refusal = Refusal(reason=reason) if reason else admit(theirs)
        verdict: dict[str, Any] = {"type": "welcome"}
        if refusal is not None:
            verdict = {"type": "refused", "reason": refusal.reason, "retry": refusal.retry}
        proof = prove(secret, _ACCEPTOR, (*heard, _canonical(verdict)))
        _send(channel, deadline, {**verdict, "proof": proof})
        if reason is not None:
            raise Misfit(f"refused {peer}: {reason}", theirs)
        if refusal is not None:
            raise HandshakeError(f"refused {peer}: {refusal.reason}")
        return channel.detach(), theirs
    except HandshakeError:
        raise
    except ChannelError as error:  # names the peer
        raise HandshakeError(str(error)) from error
    except OSError as error:
        raise HandshakeError(f"dropped {peer}: {error}") from error
    finally:
        channel.close()


def connect(
    address: Address,
    secret: bytes,
    own: Hello,
    *,
    name: str | None = None,
    expect_node: int | None = None,
    timeout: float = 10.0,
) -> tuple[socket.socket, Hello]:
    """The connector's side: tries until it works or ``timeout`` seconds have passed.

    Absent listeners, dropped connections and refusals that invite it are tried again; others raise
    at once. ``name`` is for errors. With ``expect_node`` the acceptor must be that node of
    ``own.session``. Returns the socket in blocking mode and the acceptor's Hello.
    ``HandshakeError`` names the peer and the last cause, ``Unreachable`` where time was up.
    """
    name = name or format_address(address)
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            sock, theirs = _introduce(_dial(address, deadline), secret, own, name, deadline)
            break
        except HandshakeError:
            raise
        except ValueError as error:
            raise HandshakeError(f"{name} cannot be reached: {error}") from error
        except (OSError, _TryAgain) as error:
            cause = getattr(error, "strerror", None) or str(error)
        if time.monotonic() + pause >= deadline:
            raise Unreachable(f"{name} could not be reached within {timeout:.3g} s: {cause}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    if expect_node is not None and (theirs.node, theirs.session) != (expect_node, own.session):
        sock.close()
        raise HandshakeError(
            f"{name} is node {theirs.node} there, not node {expect_node} of this session; every "
            "node needs an address of its own"
        )
    return sock, theirs


def _introduce(
    sock: socket.socket, secret: bytes, own: Hello, name: str, deadline: float
) -> tuple[socket.socket, Hello]:
    """One attempt on a connected socket."""
    channel = _unproved_channel(sock, name)
    try:
        configure(sock, own.purpose)
        first = {"type": "hello", "nonce": make_nonce(), **asdict(own)}
        _send(channel, deadline, first)
        second = _receive(channel, "challenge", deadline)
        theirs = read_hello(second, name)
        if second.get("nonce") == first["nonce"] or theirs.purpose != own.purpose:
            raise HandshakeError(f"{name} does not keep to the handshake")
        heard = (_canonical(first), _canonical(second))
        _send(channel, deadline, {"type": "proof", "proof": prove(secret, _CONNECTOR, heard)})
        verdict = _receive(channel, None, deadline)
        proof = verdict.pop("proof", None)
        if not verify(secret, _ACCEPTOR, (*heard, _canonical(verdict)), proof):
            _raise_refused(name, verdict)
            raise Unproved(f"{name} does not know the cluster secret; use the same token file")
        reason = mismatch(own, theirs)
        if reason is not None:
            raise Misfit(f"{name} does not fit: {reason}", theirs)
        if verdict.get("type") == "welcome":
            return channel.detach(), theirs
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


def _dial(address: Address, deadline: float) -> socket.socket:
    failure: OSError | None = None
    for family, sockaddr in resolve(address, deadline):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.01, min(_DIAL_SECONDS, deadline - time.monotonic())))
            sock.connect(sockaddr)
            if sock.getsockname() == sock.getpeername():
                # A free port of this machine, dialled until the system connected it to itself.
                raise ConnectionRefusedError("nothing listens there")
            return sock
        except OSError as error:
            sock.close()
            silent = isinstance(error, TimeoutError)
            failure = failure or (OSError("it does not answer") if silent else error)
    raise failure or OSError("the host has no address")


def _unproved_channel(sock: socket.socket, peer: str) -> Channel:
    return Channel(sock, peer, max_header_bytes=MAX_UNPROVED_BYTES, max_payload_bytes=0)


def _send(channel: Channel, deadline: float, message: dict[str, Any]) -> None:
    channel.send(message, timeout=max(0.01, deadline - time.monotonic()))


def _receive(channel: Channel, kind: str | None, deadline: float) -> dict[str, Any]:
    try:
        message, _ = channel.receive(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise TimeoutError("it says nothing") from None
    if not all(isinstance(value, (str, int)) for value in message.values()):
        raise ChannelError(f"{channel.peer} does not keep to the handshake")
    if kind is None or message.get("type") == kind:
        return message
    _raise_refused(channel.peer, message)
    raise ChannelError(f"{channel.peer} does not keep to the handshake")


def _raise_refused(name: str, message: dict[str, Any]) -> None:
    if message.get("type") == "refused":
        raise HandshakeError(f"{name} refused: {printable(message.get('reason'))}")


def _canonical(message: dict[str, Any]) -> bytes:
    return json.dumps(message, sort_keys=True, separators=(",", ":")).encode()
