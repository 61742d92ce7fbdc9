"""What all messages have in common: a message is a JSON object with a ``type``, whose other fields
are those of the record of that type. Knows no record of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from bandweave.record import from_json, to_json


class MessageError(ValueError):
    """A message that makes no sense; says what is wrong with it."""


class Message(Protocol):
    """A record that is sent."""

    TYPE: ClassVar[str]


M = TypeVar("M", bound=Message)


def encode(message: Message) -> dict[str, Any]:
    """As a channel carries it."""
    return {"type": message.TYPE, **to_json(message)}


def decode(kind: type[M], message: Mapping[str, Any]) -> M:
    """The record of a message of that type; ``MessageError`` where it is none."""
    fields = {key: value for key, value in message.items() if key != "type"}
    if message.get("type") != kind.TYPE:
        raise MessageError(f"{str(message.get('type'))[:40]!r} came where {kind.TYPE!r} was due")
    try:
        return from_json(kind, fields, kind.TYPE)
    except (ValueError, OverflowError) as error:
        raise MessageError(str(error)) from error
