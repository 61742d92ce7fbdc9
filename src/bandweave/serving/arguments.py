"""Arguments of calls: JSON text that a model wrote, as the object that some protocols want."""

from __future__ import annotations

import json
from typing import Any

_SPACE = " \t\r\n"


def read_arguments(text: str) -> dict[str, Any]:
    """The object. Of one that was cut off, by the length of the answer say, the members that are
    whole; nothing of what is no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _whole_members(text)
    return value if isinstance(value, dict) else {}


def _whole_members(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        return found
    try:
        while True:
            key, place = decoder.raw_decode(text, _skip(text, place + 1))
            place = _skip(text, place)
            if not isinstance(key, str) or text[place : place + 1] != ":":
                return found
            value, place = decoder.raw_decode(text, _skip(text, place + 1))
            place = _skip(text, place)
            if text[place : place + 1] not in (",", "}"):  # the number may have gone on
                return found
            found[key] = value
    except (ValueError, RecursionError):
        return found


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place
