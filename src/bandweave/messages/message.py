"""What all messages have in common: a message is a JSON object with a ``type``, whose other fields
are those of the record of that type. Knows no record of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args

from bandweave.record import from_json, to_json


class MessageError(ValueError):
    """A message that makes no sense; says what is wrong with it."""


class Message:
    """A record that is sent: ``class Submit(Message, type="submit")``, a frozen dataclass."""

    TYPE: ClassVar[str]

    def __init_subclass__(cls, *, type: str) -> None:
        super().__init_subclass__()
        cls.TYPE = type


M = TypeVar("M", bound=Message)


class Question(Message, Generic[M], type=""):
    """A message that is answered by one of the type ``M``: ``class AskState(Question[State],
    type="ask_state")``."""

    ANSWER: ClassVar[Any]  # the type M

    def __init_subclass__(cls, *, type: str) -> None:
        super().__init_subclass__(type=type)
        (cls.ANSWER,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]


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


def decode_one(kinds: Sequence[type[M]], message: Mapping[str, Any]) -> M | None:
    """The record of a message that has one of these types, None where it has another;
    ``MessageError`` where it makes no sense."""
    for kind in kinds:
        if message.get("type") == kind.TYPE:
            return decode(kind, message)
    return None
