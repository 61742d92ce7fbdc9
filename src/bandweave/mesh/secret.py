"""The cluster secret and the proofs that show knowledge of it; knows no sockets and no messages.

A proof is HMAC-SHA256 keyed by the secret over everything that both sides said so far (which holds
a fresh nonce of each side) and over the role of the side that proves. A recorded proof is therefore
worth nothing in another connection, and a side's own proof is worth nothing when sent back to it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
NONCE_BYTES = 32
_LABEL = b"bandweave handshake 1"


def make_secret() -> bytes:
    """A random secret: 64 hexadecimal digits, so that it survives a text file and an editor."""
    return secrets.token_hex(32).encode()


def check_secret(secret: bytes) -> bytes:
    """The secret itself; ``ValueError`` where it is too short to resist guessing."""
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the cluster secret has {len(secret)} bytes; it needs at least {MIN_SECRET_BYTES}"
        )
    return secret


def read_secret(path: str | Path) -> bytes:
    """The secret in a token file, without surrounding white space.

    ``ValueError`` with one sentence where the file is missing, unreadable, empty, or its content
    too short or implausibly long.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the token file {path} cannot be read: {error.strerror}") from error
    secret = content.strip()
    if not secret:
        raise ValueError(f"the token file {path} is empty; put at least 16 random characters in it")
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"the token file {path} is longer than {MAX_SECRET_BYTES} bytes")
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the token file {path} holds {len(secret)} bytes; a secret needs at least "
            f"{MIN_SECRET_BYTES}"
        )
    return secret


def make_nonce() -> str:
    """A fresh nonce of 32 random bytes, in hexadecimal."""
    return secrets.token_hex(NONCE_BYTES)


def prove(secret: bytes, role: str, transcript: tuple[bytes, ...]) -> str:
    """The proof of ``role`` over the transcript, in hexadecimal.

    The parts enter with their lengths, so that no two different transcripts look alike.
    """
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for part in (_LABEL, role.encode(), *transcript):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def verify(secret: bytes, role: str, transcript: tuple[bytes, ...], proof: object) -> bool:
    """Whether ``proof``, whatever the other side sent in its place, is the proof; in a time that
    does not depend on where it differs."""
    if not isinstance(proof, str) or not proof.isascii():
        return False
    return hmac.compare_digest(prove(secret, role, transcript), proof)
