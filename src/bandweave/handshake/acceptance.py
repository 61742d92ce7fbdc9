"""Acceptance: the acceptor's side of a handshake, message by message as they come.

Never waits: whoever owns it calls ``advance`` when the socket is readable and drops it when time is
up. ``handshake`` says what is said.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from bandweave.handshake.encryption import NEEDED, stays_here
from bandweave.handshake.handshake import (
    MAX_UNPROVED_BYTES,
    SECRETS_DIFFER,
    HandshakeError,
    Misfit,
    Unproved,
)
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
    Hello,
    Refusal,
    mismatch,
    protocol_mismatch,
    read_hello,
    read_protocol,
)
from bandweave.handshake.noise import Noise, NoiseError
from bandweave.handshake.secret import shared_key
from bandweave.handshake.transcript import ACCEPTOR, CONNECTOR, Transcript
from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.sealing import Keys, MissingLibrary
from bandweave.mesh.tcp_options import configure

Admit = Callable[[Hello], Refusal | None]


class Acceptance:
    """One connection in the midst of its handshake. Takes the socket over.

    ``own`` says who the acceptor is at the time; ``admit`` sees only proved Hellos of fitting
    versions and may refuse them. ``encrypted``: what leaves this machine must be. ``spoken``:
    whether a whole message has come; ``keys`` of a welcomed connection, None where it is plain;
    ``local``: whether nothing of it leaves this machine.
    """

    def __init__(
        self,
        sock: socket.socket,
        secret: bytes,
        own: Callable[[], Hello],
        admit: Admit,
        *,
        peer: str,
        encrypted: bool = False,
    ) -> None:
        self.peer, self.spoken = peer, False
        self.keys: Keys | None = None
        self.local = False
        self._own, self._admit, self._encrypted = own, admit, encrypted
        self._socket = sock
        self._channel = Channel(sock, peer, max_message_bytes=MAX_UNPROVED_BYTES)
        self._secret, self._transcript = secret, Transcript(secret)
        self._expects, self._answer = "hello", self._answer_hello
        self._said: Hello | None = None  # and yet to be confirmed
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
        if "sealed" in message:
            self._agree(message)
            return
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
        self.local = stays_here(self._socket, theirs.network)
        needed = Refusal(reason=NEEDED) if self._encrypted and not self.local else None
        self._judge(theirs, needed, lambda verdict: self._transcript.prove(ACCEPTOR, verdict))

    def _agree(self, message: Mapping[str, Any]) -> None:
        """Answers the hello of an encrypted handshake. What it says counts once it is confirmed."""
        if not isinstance(message["sealed"], str):
            raise ChannelError(f"{self.peer} does not keep to the handshake")
        own = self._own()
        try:
            noise = Noise(shared_key(self._secret), prologue(own.protocol), initiator=False)
            self._said = read_sealed(message, noise, self.peer)
            self._send(sealed_message("challenge", own.protocol, noise, own))
        except NoiseError:
            self._send({"type": "refused", "reason": SECRETS_DIFFER})
            raise Unproved(f"refused {self.peer}: {SECRETS_DIFFER}") from None
        except MissingLibrary as error:
            self._send({"type": "refused", "reason": f"it cannot encrypt: {error}"})
            raise HandshakeError(f"refused {self.peer}: {error}") from error
        ours, self.keys = traffic_keys(noise)
        self._channel.seal(ours)
        self._expects, self._answer = "confirm", self._answer_confirmation

    def _answer_confirmation(self, message: Mapping[str, Any]) -> None:
        assert self._said is not None
        self.local = stays_here(self._socket, self._said.network)
        self._judge(self._said, None, lambda verdict: verdict)

    def _judge(
        self,
        theirs: Hello,
        refusal: Refusal | None,
        proved: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Tells a proved connector what becomes of it."""
        configure(self._socket, theirs.purpose)
        reason = mismatch(self._own(), theirs)
        refusal = Refusal(reason=reason) if reason else refusal or self._admit(theirs)
        verdict: dict[str, Any] = {"type": "welcome"}
        if refusal is not None:
            verdict = {"type": "refused", "reason": refusal.reason, "retry": refusal.retry}
        self._send(proved(verdict))
        if reason is not None:
            raise Misfit(f"refused {self.peer}: {reason}", theirs)
        if refusal is not None:
            raise HandshakeError(f"refused {self.peer}: {refusal.reason}")
        self._taken = theirs

    def _send(self, message: dict[str, Any]) -> None:
        """At once or not at all: an honest connector has read what was sent before."""
        self._channel.send(message, timeout=0.0)
