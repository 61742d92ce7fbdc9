"""Hello: what the two sides of a connection say of themselves, and whether they fit together.

Knows names and versions; knows no sockets, no secrets and no order of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bandweave import NUMERICS_VERSION, __version__
from bandweave.mesh.channel import ChannelError
from bandweave.mesh.host import network_id
from bandweave.mesh.printable import printable
from bandweave.run_options import MAX_NODES

PROTOCOL_VERSION = 8
NO_NODE = -1  # the node of a worker that no controller has taken yet
_LARGEST_VERSION = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a side says of itself. ``purpose`` is what a connector wants, ``"control"``, ``"mesh"``,
    ``"files"``, or ``"cluster"`` (to be a member of a head's cluster, or to hear of it);
    ``address`` is where an acceptor wants other nodes to reach it, where that is not the address
    connected to. ``identity``: the cluster that a controller or a head speaks for, or the worker
    that speaks; random, and empty where a side has none. ``network`` is the one that it sees
    (``mesh.host``)."""

    purpose: str
    node: int
    session: str
    protocol: int = PROTOCOL_VERSION
    numerics: int = NUMERICS_VERSION
    package: str = __version__
    address: str = ""
    identity: str = ""
    network: str = field(default_factory=network_id)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an acceptor does not take an authenticated connection; ``retry`` where it soon may."""

    reason: str
    retry: bool = False


def protocol_mismatch(here: int, there: int) -> str | None:
    """One sentence where two versions of the protocol differ. It says no more than both know."""
    if here == there:
        return None
    return (
        f"protocol version {here} here, {there} there: install the same version of bandweave on "
        "both machines"
    )


def mismatch(mine: Hello, theirs: Hello) -> str | None:
    """One sentence, as seen from ``mine``, where two versions cannot work together."""
    if mine.numerics == theirs.numerics:
        return protocol_mismatch(mine.protocol, theirs.protocol)
    return (
        f"numerics version {mine.numerics} here, {theirs.numerics} there: install the same "
        f"bandweave on both ({mine.package} here, {theirs.package} there)"
    )


def read_protocol(message: Mapping[str, Any], peer: str) -> int:
    """The protocol's version in the first message of ``peer``, which must hold a whole nonce too.
    ``ChannelError`` otherwise."""
    nonce = message.get("nonce")
    if not isinstance(nonce, str) or len(nonce) != 64:
        raise ChannelError(f"{peer} does not keep to the handshake (nonce)")
    return _number(message, "protocol", 0, _LARGEST_VERSION, peer)


def read_hello(message: Mapping[str, Any], peer: str) -> Hello:
    """The Hello in a message of ``peer``; ``ChannelError`` where it is none. Ignores other
    fields."""
    hello = Hello(
        purpose=_text(message, "purpose", 16, peer),
        node=_number(message, "node", NO_NODE, MAX_NODES - 1, peer),
        session=_text(message, "session", 64, peer),
        protocol=_number(message, "protocol", 0, _LARGEST_VERSION, peer),
        numerics=_number(message, "numerics", 0, _LARGEST_VERSION, peer),
        package=_text(message, "package", 64, peer),
        address=_text(message, "address", 256, peer),
        identity=_text(message, "identity", 64, peer),
        network=_text(message, "network", 64, peer),
    )
    if hello.purpose not in ("control", "mesh", "files", "cluster"):
        raise ChannelError(f"{peer} does not keep to the handshake (purpose)")
    return hello


def _text(message: Mapping[str, Any], field: str, most: int, peer: str) -> str:
    value = message.get(field)
    if not isinstance(value, str) or len(value) > most:
        raise ChannelError(f"{peer} does not keep to the handshake ({field})")
    return printable(value)


def _number(message: Mapping[str, Any], field: str, least: int, most: int, peer: str) -> int:
    value = message.get(field)
    if type(value) is not int or not least <= value <= most:  # a bool is no number here
        raise ChannelError(f"{peer} does not keep to the handshake ({field})")
    return value
