"""The messages of a handshake, as both sides make and read them. See ``handshake``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bandweave.handshake.hello import (
    Hello,
    read_hello,
)
from bandweave.handshake.noise import PUBLIC_BYTES, Noise, NoiseError
from bandweave.handshake.secret import make_nonce
from bandweave.mesh.channel import ChannelError
from bandweave.mesh.sealing import Keys


def first_message(kind: str, protocol: int) -> dict[str, Any]:
    """A hello or a challenge, with a fresh nonce."""
    return {"type": kind, "protocol": protocol, "nonce": make_nonce()}


def sealed_message(kind: str, protocol: int, noise: Noise, own: Hello) -> dict[str, Any]:
    """A hello or a challenge, with a Hello that only who knows the secret can read. ``NoiseError``
    where the other side's key is none."""
    message = noise.write(json.dumps(asdict(own), separators=(",", ":")).encode())
    public, sealed = message[:PUBLIC_BYTES].hex(), message[PUBLIC_BYTES:].hex()
    # Where versions of the protocol before the sixth look for a nonce.
    return {"type": kind, "protocol": protocol, "nonce": public, "sealed": sealed}


def read_sealed(message: Mapping[str, Any], noise: Noise, peer: str) -> Hello:
    """The Hello in such a message. ``NoiseError`` where somebody else made it, ``ChannelError``
    where it makes no sense."""
    try:
        payload = noise.read(bytes.fromhex(f"{message['nonce']}{message['sealed']}"))
    except ValueError:
        raise NoiseError from None
    try:
        said = json.loads(payload)
        return read_hello(said if isinstance(said, dict) else {}, peer)
    except (ValueError, RecursionError):
        raise ChannelError(f"{peer} does not keep to the handshake") from None


def prologue(protocol: int) -> bytes:
    """What both sides think the same of before the first message."""
    return b"bandweave handshake %d" % protocol


def traffic_keys(noise: Noise) -> tuple[Keys, Keys]:
    """The keys of the handshake's own last messages, and of all that follows it."""
    root = noise.split()
    return root.derive("handshake", noise.hash), root.derive("traffic", noise.hash)


def introduction(own: Hello) -> dict[str, Any]:
    """A Hello as a message, yet without its proof."""
    return {"type": "introduction", **asdict(own)}


def check_fields(message: Mapping[str, Any], peer: str) -> None:
    """``ChannelError`` for a message that holds more than texts and whole numbers: two sides could
    read others differently."""
    if not all(isinstance(value, (str, int)) for value in message.values()):
        raise ChannelError(f"{peer} does not keep to the handshake")
