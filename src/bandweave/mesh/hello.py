"""Hello: what the two sides of a connection say of themselves, and whether they fit together.

Knows names and versions; knows no sockets, no secrets and no order of messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bandweave import NUMERICS_VERSION, __version__
from bandweave.mesh.channel import ChannelError

PROTOCOL_VERSION = 3
NO_NODE = -1  # the node of a worker that no controller has taken yet


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a side says of itself. ``purpose`` is ``"control"`` or ``"mesh"``; ``address`` is where
    an acceptor wants other nodes to reach it, where that is not the address connected to."""

    purpose: str
    node: int
    session: str
    protocol: int = PROTOCOL_VERSION
    numerics: int = NUMERICS_VERSION
    package: str = __version__
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an acceptor does not take an authenticated connection; ``retry`` where it soon may."""

    reason: str
    retry: bool = False


def mismatch(mine: Hello, theirs: Hello) -> str | None:
    """One sentence, as seen from ``mine``, where two versions cannot work together."""
    for kind in ("protocol", "numerics"):
        here, there = getattr(mine, kind), getattr(theirs, kind)
        if here != there:
            return (
                f"{kind} version {here} here, {there} there: install the same bandweave on both "
                f"({mine.package} here, {theirs.package} there)"
            )
    return None


def printable(reason: object) -> str:
    """A stranger's text, made safe for a terminal."""
    text = reason if isinstance(reason, str) else "no reason given"
    return "".join(character for character in text[:300] if character.isprintable())


def read_hello(message: dict[str, Any], peer: str) -> Hello:
    """The Hello in a message of ``peer``; ``ChannelError`` where it is none. Ignores other fields
    but the nonce, which must have its length."""
    values: dict[str, Any] = {}
    for field, kind, most in (
        ("purpose", str, 16),
        ("node", int, 1 << 31),
        ("session", str, 64),
        ("protocol", int, 1 << 31),
        ("numerics", int, 1 << 31),
        ("package", str, 64),
        ("address", str, 256),
        ("nonce", str, 64),
    ):
        value = message.get(field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ChannelError(f"{peer} does not keep to the handshake ({field})")
        if (len(value) if isinstance(value, str) else abs(value)) > most:
            raise ChannelError(f"{peer} does not keep to the handshake ({field})")
        values[field] = value
    if len(values.pop("nonce")) != 64 or values["purpose"] not in ("control", "mesh"):
        raise ChannelError(f"{peer} does not keep to the handshake (nonce, purpose)")
    values["package"] = printable(values["package"])
    return Hello(**values)
