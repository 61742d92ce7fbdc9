"""The cluster secret and the proofs that show knowledge of it; knows no sockets and no messages.

An encrypted connection mixes ``shared_key`` into its keys (``noise``). On a plain one each side
proves that it knows the secret: a proof is HMAC-SHA256 keyed by the secret over everything that
both sides said so far (which holds a fresh nonce of each side) and over the role of the side that
proves. A recorded proof is therefore worth nothing in another connection, and a side's own proof is
worth nothing when sent back to it.

Whoever hears a handshake can try guesses against it. Tokens of our own making are random and long:
there is nothing to guess. Any other secret is stretched (scrypt, RFC 7914), so that a guess costs
64 MiB and a tenth of a second or more instead of a microsecond.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path

from bandweave.mesh.sealing import derive

MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
NONCE_BYTES = 32
_LABEL, _SHARED_KEY = b"bandweave handshake 3", b"bandweave shared key"

_PREFIX = b"bandweave-"
_RANDOM_DIGITS, _CHECK_DIGITS = 64, 8
_TOKEN = re.compile(rb"bandweave-([0-9a-f]{64})([0-9a-f]{8})")
_FORMER_TOKEN = re.compile(rb"[0-9a-f]{64}")  # before tokens had a prefix
_MIN_DIGITS = 8  # different ones 64 random digits have fewer once in 10^18

# A salt of one's own for every cluster would have to be known before anything is said.
_SALT = b"bandweave cluster secret"
_SCRYPT_N, _SCRYPT_R = 1 << 16, 8
_PIPE_SECONDS = 30.0


def make_secret() -> bytes:
    """A random token of 256 bits: a prefix by which people and programs know it, hexadecimal
    digits, and eight more that show a slip of the hand."""
    digits = secrets.token_hex(_RANDOM_DIGITS // 2).encode()
    return _PREFIX + digits + _check_digits(digits)


def _check_digits(digits: bytes) -> bytes:
    return hashlib.sha256(_PREFIX + digits).hexdigest()[:_CHECK_DIGITS].encode()


def check_secret(secret: bytes) -> bytes:
    """The secret itself; ``ValueError`` where it is too short to resist guessing."""
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the cluster secret has {len(secret)} bytes; it needs at least {MIN_SECRET_BYTES}"
        )
    return secret


def read_secret(path: str | Path, on_remark: Callable[[str], None] = lambda remark: None) -> bytes:
    """The secret that a token file gives, ready for use: a token as it is, any other text (without
    surrounding white space) stretched to 32 bytes.

    ``on_remark`` hears a sentence where others on this machine can read the file. ``ValueError``
    with one sentence where the file is missing, unreadable, empty, or holds a token with a slip in
    it or a text that is too short or implausibly long.
    """
    try:
        content, mode = read_private(path, MAX_SECRET_BYTES)
    except OSError as error:
        raise ValueError(f"the token file {path} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & 0o077:
        on_remark(f"the token file {path} is open to other users of this machine: chmod 600 {path}")
    secret = content.strip()
    if not secret:
        raise ValueError(f"the token file {path} is empty; {_REMEDY}")
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"the token file {path} is longer than {MAX_SECRET_BYTES} bytes")
    if secret.startswith(_PREFIX):
        return _checked_token(secret, path)
    if _FORMER_TOKEN.fullmatch(secret) and len(set(secret)) >= _MIN_DIGITS:
        return secret
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the token file {path} holds {len(secret)} bytes; a secret needs at least "
            f"{MIN_SECRET_BYTES}; {_REMEDY}"
        )
    return _stretch(secret, path)


_REMEDY = "`bandweave worker --make-token FILE` writes a good one"


def read_private(path: str | Path, most: int) -> tuple[bytes, int]:
    """At most one byte more than ``most`` of a file with secrets, and its mode. Where the file is a
    pipe, its writer has half a minute. ``OSError`` where it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        content, deadline = b"", time.monotonic() + _PIPE_SECONDS
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        while len(content) <= most:
            try:
                piece = os.read(descriptor, most + 1 - len(content))
            except BlockingIOError:
                if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError(errno.ETIMEDOUT, "nobody writes to this pipe") from None
                continue
            if not piece:
                break
            content += piece
        return content, mode
    finally:
        os.close(descriptor)


def _checked_token(secret: bytes, path: str | Path) -> bytes:
    found = _TOKEN.fullmatch(secret)
    if not found or found[2] != _check_digits(found[1]):
        raise ValueError(
            f"the token file {path} begins as a token of bandweave does, but is not whole: its "
            "check digits do not fit; copy it again from the machine where it was made"
        )
    return secret


def _stretch(secret: bytes, path: str | Path) -> bytes:
    if not hasattr(hashlib, "scrypt"):
        raise ValueError(
            f"the token file {path} holds a secret that this Python cannot strengthen (it was "
            f"built without scrypt); {_REMEDY}"
        )
    memory = 2 * 128 * _SCRYPT_N * _SCRYPT_R
    return hashlib.scrypt(
        secret, salt=_SALT, n=_SCRYPT_N, r=_SCRYPT_R, p=1, maxmem=memory, dklen=32
    )


def shared_key(secret: bytes) -> bytes:
    """The 32 bytes that encrypted connections mix into their keys."""
    return derive(secret, _SHARED_KEY)


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
