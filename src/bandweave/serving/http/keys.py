"""Keys: who may ask, by a secret that their programs send. Knows no requests.

A key's secret is known to nobody behind this module: others see the name of whoever it is given to.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandweave.handshake.secret import read_private

_LEAST_CHARACTERS, _MOST_CHARACTERS = 16, 512
_MOST_BYTES, _MOST_KEYS = 1 << 20, 4096
_REMEDY = "a good one is what `openssl rand -hex 24` prints"


@dataclass(frozen=True, kw_only=True)
class Key:
    """``name`` of whoever has it, and their ``weight``: twice the weight, twice the share of a busy
    machine. ``digest``: of the secret."""

    name: str
    weight: float
    digest: bytes


class Keys:
    """Those of a server; it may have none, and then asks for none."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, secrets: Sequence[bytes]) -> Key | None:
        """The key that one of the secrets is of, in a time that tells nothing of how near it was
        to any."""
        found = None
        for secret in secrets:
            digest = _digest(secret)
            for key in self._keys:
                if hmac.compare_digest(key.digest, digest):
                    found = key
        return found


def read_keys(path: str | Path, on_remark: Callable[[str], None] = lambda remark: None) -> Keys:
    """The keys of a file: one per line, a name and a weight behind it where they are wanted; what
    follows ``#`` is for people.

    ``on_remark`` hears a sentence where others on this machine can read the file. ``ValueError``
    with one sentence, which never holds a key, for a file that is none of this kind.
    """
    try:
        content, mode = read_private(path, _MOST_BYTES)
    except OSError as error:
        raise ValueError(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the key file {path} is longer than {_MOST_BYTES >> 20} MiB")
    if stat.S_ISREG(mode) and mode & 0o077:
        on_remark(f"the key file {path} is open to other users of this machine: chmod 600 {path}")
    keys: list[Key] = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.partition(b"#")[0].split()
        if words:
            keys.append(_key(words, number, f"line {number} of the key file {path}"))
    if not keys:
        raise ValueError(f"the key file {path} holds no key; write one per line: {_REMEDY}")
    if len(keys) > _MOST_KEYS:
        raise ValueError(f"the key file {path} holds {len(keys)} keys; {_MOST_KEYS} are the most")
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError(f"the key file {path} holds a key twice; each line needs one of its own")
    return Keys(keys)


def _key(words: Sequence[bytes], number: int, where: str) -> Key:
    if len(words) > 3:
        raise ValueError(f"{where} has {len(words)} words; it may be a key, a name and a weight")
    secret = words[0]
    if not _LEAST_CHARACTERS <= len(secret) <= _MOST_CHARACTERS:
        raise ValueError(
            f"{where} begins with a key of {len(secret)} characters; it needs "
            f"{_LEAST_CHARACTERS} to {_MOST_CHARACTERS}: {_REMEDY}"
        )
    if not all(0x20 < byte < 0x7F for byte in secret):
        raise ValueError(f"{where} begins with a key that has more than letters, digits and signs")
    try:
        name = words[1].decode() if len(words) > 1 else f"key {number}"
        weight = float(words[2]) if len(words) > 2 else 1.0
    except ValueError as error:
        raise ValueError(f"{where} needs a number as its third word, the weight") from error
    if not name.isprintable() or len(name) > 64:
        raise ValueError(f"{where} has a name that is no word of at most 64 characters")
    if not math.isfinite(weight) or not 1e-3 <= weight <= 1e3:
        raise ValueError(f"{where} has a weight that is not from 0.001 to 1000")
    return Key(name=name, weight=weight, digest=_digest(secret))


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
