"""Transcript: the messages of a plain handshake as both sides know them, and the proofs over them.

Knows no meaning of a message but its ``"proof"``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bandweave.handshake.secret import prove, verify

CONNECTOR, ACCEPTOR = "connector", "acceptor"


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
