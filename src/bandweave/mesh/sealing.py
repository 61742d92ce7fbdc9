"""Sealing: bytes in records that nobody can read, alter, repeat, reorder or send back who lacks the
keys of their connection.

A record is its length (32-bit, little-endian), sealed, and as many bytes, sealed. A seal is an AEAD
under the key of its direction, whose nonce is the number of seals before it, so that nothing but
the next record opens. A key is renewed after four million seals, as Noise renews one (its section
4.2 and 11.3). The native exchange has the same records (native/exchange/sealed.cpp).

The primitives are those of the ``cryptography`` package, which is loaded with the first key. Knows
no sockets and no handshake.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

KEY_BYTES, TAG_BYTES = 32, 16
RECORD_BYTES = 17 << 10  # at most; 16 KB of numbers, their tags and a frame's header
AES, CHACHA = "aes-256-gcm", "chacha20-poly1305"
CIPHERS = (AES, CHACHA)
SEALS_A_KEY = 1 << 22  # of 34 GiB at most, a tenth of what would wear a key out

_LENGTH = struct.Struct("<I")
_SEALED_LENGTH = _LENGTH.size + TAG_BYTES
_NONCES = {AES: struct.Struct(">4xQ"), CHACHA: struct.Struct("<4xQ")}  # as Noise writes them
_LAST_NONCE = (1 << 64) - 1
_INFO = b"bandweave "


class SealError(Exception):
    """What came is not what was sealed."""


class MissingLibrary(ValueError):
    """The package that encrypts is not there; says what to do."""


def library() -> Any:
    """The modules of ``cryptography`` that are used here and in the handshake."""
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import x25519
        from cryptography.hazmat.primitives.ciphers import aead
        from cryptography.hazmat.primitives.kdf import hkdf
    except ImportError as error:
        raise MissingLibrary(
            "encryption between machines needs the cryptography package: pip install cryptography; "
            "on a network that you trust --no-encrypt goes without"
        ) from error
    return _Library(exceptions=exceptions, hashes=hashes, x25519=x25519, aead=aead, hkdf=hkdf)


@dataclass(frozen=True, kw_only=True)
class _Library:
    exceptions: Any
    hashes: Any
    x25519: Any
    aead: Any
    hkdf: Any


def derive(key: bytes, label: bytes, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    found = library()
    return found.hkdf.HKDF(found.hashes.SHA256(), length, salt, label).derive(key)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Those of one connection's two directions, as one end has them; ``send`` is the other end's
    ``receive``."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)

    def derive(self, label: str, salt: bytes = b"") -> Keys:
        """Keys for another use of the connection, from which these cannot be told."""
        info = _INFO + label.encode()
        return Keys(send=derive(self.send, info, salt), receive=derive(self.receive, info, salt))


class _Direction:
    """A key, and how often it has sealed or opened."""

    def __init__(self, key: bytes, cipher: str = AES, seals_a_key: int = SEALS_A_KEY) -> None:
        self._cipher, self._nonces, self._every = cipher, _NONCES[cipher], seals_a_key
        self._invalid = library().exceptions.InvalidTag
        self._count = 0
        self._use(key)

    def _use(self, key: bytes) -> None:
        aead = library().aead
        self._aead = (aead.AESGCM if self._cipher == AES else aead.ChaCha20Poly1305)(key)

    def _nonce(self) -> bytes:
        number = self._count
        if number and number % self._every == 0:
            self._use(self._aead.encrypt(self._nonces.pack(_LAST_NONCE), bytes(32), None)[:32])
        assert number < _LAST_NONCE
        self._count = number + 1
        return self._nonces.pack(number)


class Sealer(_Direction):
    """Makes records, in the order in which they must arrive. Belongs to one thread at a time."""

    def seal(self, data: bytes | memoryview) -> bytes:
        """``data`` as records."""
        parts = []
        view = memoryview(data)
        for first in range(0, len(view), RECORD_BYTES):
            piece = view[first : first + RECORD_BYTES]
            for part in (_LENGTH.pack(len(piece)), piece):
                nonce = self._nonce()  # first: it may renew the key
                parts.append(self._aead.encrypt(nonce, part, None))
        return b"".join(parts)


class Opener(_Direction):
    """Opens records, piece by piece: ``wanted`` is how many bytes the next piece has."""

    def __init__(self, key: bytes, cipher: str = AES, seals_a_key: int = SEALS_A_KEY) -> None:
        super().__init__(key, cipher, seals_a_key)
        self.wanted, self.in_record = _SEALED_LENGTH, False

    def open(self, piece: bytes | bytearray | memoryview) -> bytes:
        """What the piece holds: nothing where it was a length. ``SealError`` where it is not what
        was sealed; nothing can be opened after that."""
        assert len(piece) == self.wanted
        nonce = self._nonce()  # first: it may renew the key
        try:
            plain = self._aead.decrypt(nonce, piece, None)
        except self._invalid:
            raise SealError from None
        if self.in_record:
            self.wanted, self.in_record = _SEALED_LENGTH, False
            return plain
        (length,) = _LENGTH.unpack(plain)
        if not 1 <= length <= RECORD_BYTES:
            raise SealError
        self.wanted, self.in_record = length + TAG_BYTES, True
        return b""
