"""Noise_NNpsk0_25519_AESGCM_SHA256: two messages that give two sides the same fresh keys.

The Noise Protocol Framework, revision 34, and of it this one pattern: both sides mix the cluster's
secret in before anything else, and each brings a key of its own for this connection alone. Payloads
of both messages are sealed. Who records all of it and learns the secret later can read the first
payload, and neither the second nor the keys.

X25519, HKDF and AES-256-GCM are those of the ``cryptography`` package. Knows no sockets and no
meaning of a payload.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from bandweave.mesh.sealing import TAG_BYTES, Keys, derive, library

NAME = b"Noise_NNpsk0_25519_AESGCM_SHA256"
PUBLIC_BYTES = 32
_NONCE = struct.Struct(">4xQ")


class NoiseError(Exception):
    """A message that the other side did not make with the same secret, for this connection."""


class CipherState:
    """Section 5.1: a key, and the number of the next seal under it."""

    def __init__(self, key: bytes) -> None:
        found = library()
        self._aead, self._invalid = found.aead.AESGCM(key), found.exceptions.InvalidTag
        self._number = 0

    def encrypt(self, plain: bytes, bound: bytes = b"") -> bytes:
        """The payload sealed, and ``bound`` to it."""
        return self._aead.encrypt(self._nonce(), plain, bound)

    def decrypt(self, sealed: bytes, bound: bytes = b"") -> bytes:
        """``NoiseError`` where it is not what was sealed."""
        try:
            return self._aead.decrypt(self._nonce(), sealed, bound)
        except self._invalid:
            raise NoiseError from None

    def _nonce(self) -> bytes:
        self._number += 1
        return _NONCE.pack(self._number - 1)


class Noise:
    """One side of one handshake. The initiator writes, then reads; the responder reads, then
    writes; then both ``split``.

    ``psk``: 32 bytes. ``prologue``: what both sides must think the same of. ``ephemeral``: the
    private key of this side, for tests with published values.
    """

    def __init__(
        self, psk: bytes, prologue: bytes, *, initiator: bool, ephemeral: bytes | None = None
    ) -> None:
        self._initiator, self._psk = initiator, psk
        self._library = library()
        private = self._library.x25519.X25519PrivateKey
        self._own = private.from_private_bytes(ephemeral) if ephemeral else private.generate()
        self._theirs: Any = None
        self._chaining = self.hash = NAME  # exactly as long as a hash
        self._cipher: CipherState | None = None
        self._mix_hash(prologue)

    def write(self, payload: bytes) -> bytes:
        """This side's message. ``NoiseError`` as ``read``."""
        public = self._own.public_key().public_bytes_raw()
        if self._initiator:
            self._mix_psk()
        self._mix_hash(public)
        self._mix_key(public)
        if not self._initiator:
            self._mix_agreed()
        assert self._cipher is not None
        sealed = self._cipher.encrypt(payload, self.hash)
        self._mix_hash(sealed)
        return public + sealed

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's message. ``NoiseError`` where it did not come from
        somebody with the same secret and prologue; the handshake is over then."""
        if len(message) < PUBLIC_BYTES + TAG_BYTES:
            raise NoiseError
        public, sealed = message[:PUBLIC_BYTES], message[PUBLIC_BYTES:]
        if not self._initiator:
            self._mix_psk()
        self._mix_hash(public)
        self._mix_key(public)
        self._theirs = self._library.x25519.X25519PublicKey.from_public_bytes(public)
        if self._initiator:
            self._mix_agreed()
        assert self._cipher is not None
        payload = self._cipher.decrypt(sealed, self.hash)
        self._mix_hash(sealed)
        return payload

    def split(self) -> Keys:
        """The keys of both directions, once both messages have been said."""
        both = derive(b"", b"", self._chaining, 64)
        first, second = both[:32], both[32:]
        if self._initiator:
            return Keys(send=first, receive=second)
        return Keys(send=second, receive=first)

    def _mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def _mix_key(self, material: bytes) -> None:
        both = derive(material, b"", self._chaining, 64)
        self._chaining, self._cipher = both[:32], CipherState(both[32:])

    def _mix_agreed(self) -> None:
        try:
            self._mix_key(self._own.exchange(self._theirs))
        except ValueError:  # a point of small order: the shared value would be anybody's
            raise NoiseError from None

    def _mix_psk(self) -> None:
        three = derive(self._psk, b"", self._chaining, 96)
        self._chaining = three[:32]
        self._mix_hash(three[32:64])
        self._cipher = CipherState(three[64:])
