"""Acceptance: the acceptor's side of a handshake, message by message as they come.

Never waits: whoever owns it calls ``advance`` when the socket is readable and drops it when time is
up. ``handshake`` says what is said.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from bandweave.handshake.handshake import (
    MAX_UNPROVED_BYTES,
    SECRETS_DIFFER,
    HandshakeError,
    Misfit,
    Unproved,
    check_fields,
    first_message,
    introduction,
)
from bandweave.handshake.hello import (
    Hello,
    Refusal,
    mismatch,
    protocol_mismatch,
    read_hello,
    read_protocol,
)
from bandweave.handshake.transcript import ACCEPTOR, CONNECTOR, Keys, Transcript
from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.tcp_options import configure

Admit = Callable[[Hello], Refusal | None]


class Acceptance:
    """One connection in the midst of its handshake. Takes the socket over.

    ``own`` says who the acceptor is at the time; ``admit`` sees only proved Hellos of fitting
    versions and may refuse them. ``spoken``: whether a whole message has come.
    """

    def __init__(
        self,
        sock: socket.socket,
        secret: bytes,
        own: Callable[[], Hello],
        admit: Admit,
        *,
        peer: str,
    ) -> None:
        self.peer, self.spoken = peer, False
        self._own, self._admit = own, admit
        self._socket = sock
        self._channel = Channel(sock, peer, max_message_bytes=MAX_UNPROVED_BYTES)
        self._transcript = Transcript(secret)
        self._expects, self._answer = "hello", self._answer_hello
        self._taken: Hello | None = None

    def fileno(self) -> int:
        return self._channel.fileno()

    def advance(self) -> Hello | None:
        """Goes on with what has come: the connector's Hello once it has been welcomed, None while
        it has more to say.

        ``HandshakeError`` where it is not taken (``Misfit`` where versions differ), after it has
        been told why where that is for it to know; it can only be closed then.
        """
        try:
            while self._taken is None and self._channel.poll():
                message = self._channel.receive(0.0)
                check_fields(message, self.peer)
                if message.get("type") != self._expects:
                    raise ChannelError(f"{self.peer} does not keep to the handshake")
                self.spoken = True
                self._answer(message)
            return self._taken
        except HandshakeError:
            raise
        except ChannelError as error:  # names the peer
            raise HandshakeError(str(error)) from error
        except OSError as error:
            raise HandshakeError(f"dropped {self.peer}: {error}") from error

    @property
    def keys(self) -> Keys:
        """Of a welcomed connection."""
        return self._transcript.keys(ACCEPTOR)

    def detach(self) -> socket.socket:
        """The socket of a welcomed connection, in blocking mode."""
        return self._channel.detach()

    def close(self) -> None:
        self._channel.close()

    # --- what is answered, in the order of the handshake ---

    def _answer_hello(self, message: Mapping[str, Any]) -> None:
        there, here = read_protocol(message, self.peer), self._own().protocol
        if there != here:
            self._send({"type": "refused", "reason": protocol_mismatch(there, here)})
            raise HandshakeError(f"refused {self.peer}: {protocol_mismatch(here, there)}")
        challenge = first_message("challenge", here)
        self._transcript.add(message)
        self._transcript.add(challenge)
        self._send(challenge)
        self._expects, self._answer = "proof", self._answer_proof

    def _answer_proof(self, message: Mapping[str, Any]) -> None:
        if not self._transcript.verify(CONNECTOR, message):
            self._send({"type": "refused", "reason": SECRETS_DIFFER})
            raise Unproved(f"refused {self.peer}: {SECRETS_DIFFER}")
        self._send(self._transcript.prove(ACCEPTOR, introduction(self._own())))
        self._expects, self._answer = "introduction", self._answer_introduction

    def _answer_introduction(self, message: Mapping[str, Any]) -> None:
        if not self._transcript.verify(CONNECTOR, message):
            raise ChannelError(f"{self.peer} does not keep to the handshake")
        theirs = read_hello(message, self.peer)
        configure(self._socket, theirs.purpose)
        reason = mismatch(self._own(), theirs)
        refusal = Refusal(reason=reason) if reason else self._admit(theirs)
        verdict: dict[str, Any] = {"type": "welcome"}
        if refusal is not None:
            verdict = {"type": "refused", "reason": refusal.reason, "retry": refusal.retry}
        self._send(self._transcript.prove(ACCEPTOR, verdict))
        if reason is not None:
            raise Misfit(f"refused {self.peer}: {reason}", theirs)
        if refusal is not None:
            raise HandshakeError(f"refused {self.peer}: {refusal.reason}")
        self._taken = theirs

    def _send(self, message: dict[str, Any]) -> None:
        """At once or not at all: an honest connector has read what was sent before."""
        self._channel.send(message, timeout=0.0)
