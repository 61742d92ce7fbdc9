"""Transcript: the messages of one handshake as both sides know them, and the proofs over them.

Knows no meaning of a message but its ``"proof"``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bandweave.handshake.secret import prove, verify

CONNECTOR, ACCEPTOR = "connector", "acceptor"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """32 bytes for each direction of one connection, the same at both of its ends.

    They come from the secret and from all that was said, both nonces among it. Nothing is encrypted
    with them yet. They are as good as the secret: who learns it later can make them again.
    """

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


class Transcript:
    """One side's record. Every message is added once, in the order in which it was said."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._said: tuple[bytes, ...] = ()

    def add(self, message: Mapping[str, Any]) -> None:
        """A message without a proof."""
        text = json.dumps(message, sort_keys=True, separators=(",", ":"))
        self._said = (*self._said, text.encode())

    def prove(self, role: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message, added, with the proof of ``role`` over all that was said, itself too."""
        self.add(message)
        return {**message, "proof": prove(self._secret, role, self._said)}

    def verify(self, role: str, message: Mapping[str, Any]) -> bool:
        """Adds a message that came; whether its proof is the one of ``role``."""
        self.add({key: value for key, value in message.items() if key != "proof"})
        return verify(self._secret, role, self._said, message.get("proof"))

    def keys(self, role: str) -> Keys:
        """Those of ``role``, once all has been said."""
        made = {
            sender: bytes.fromhex(prove(self._secret, f"key of the {sender}", self._said))
            for sender in (CONNECTOR, ACCEPTOR)
        }
        other = ACCEPTOR if role == CONNECTOR else CONNECTOR
        return Keys(send=made[role], receive=made[other])
