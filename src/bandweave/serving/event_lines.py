"""Event lines: JSON as streams carry it, each object on one line whoever splits the text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# JSON leaves these as they are, but many clients split text into lines at them, too.
_BREAKS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def one_line(value: Mapping[str, Any]) -> str:
    """An object as JSON text in which nothing is taken for the end of a line."""
    text = json.dumps(value, ensure_ascii=False)
    for character, escape in _BREAKS.items():
        text = text.replace(character, escape)
    return text


def json_line(value: Mapping[str, Any]) -> bytes:
    """A line of a stream that has one object in each."""
    return one_line(value).encode() + b"\n"


def data_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event without a name."""
    return f"data: {one_line(value)}\n\n".encode()


def named_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event whose name is the object's ``type``."""
    return f"event: {value['type']}\ndata: {one_line(value)}\n\n".encode()
