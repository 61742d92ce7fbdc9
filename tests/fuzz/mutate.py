"""Mutators: sound JSON values, texts and bytes to damaged and hostile ones. Knows no files."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any

_DEEP = "[" * 3000 + "]" * 3000
_MARK = "\x00raw:"  # what follows it stands in the JSON text as it is
_RAW = re.compile(r'"\\u0000raw:((?:[^"\\]|\\.)*)"')

#: Values that fields are given in the place of their own.
HOSTILE: Sequence[Any] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    255,
    4096,
    4097,
    2**28,
    2**31,
    2**32,
    2**53,
    2**63,
    2**64,
    10**18,
    10**400,
    -(10**400),
    0.0,
    -0.0,
    0.5,
    1e-300,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "x",
    "null",
    "0",
    "1e5",
    "\ud800",
    "\x00",
    "\n",
    "{}",
    "a" * 5000,
    "世" * 500,
    "../../etc/passwd",
    "{{ 7 * 7 }}",
    [],
    [None],
    [0],
    [[]],
    [1] * 300,
    ["x"] * 300,
    {},
    {"": {}},
    {"x": 1},
    {"content": "x"},
    {"type": "linear"},
    {"rope_type": "llama3"},
    {"__float__": "NaN"},
    _MARK + "9" * 5000,
    _MARK + "1e99999",
    _MARK + "-" + "9" * 350,
    _MARK + _DEEP,
    _MARK + '{"a":1,"a":2}',
    _MARK + '"\\ud83d"',
    _MARK + "Infinity",
)


def json_bytes(value: Any) -> bytes:
    """A value as JSON text, with the raw texts among the hostile ones put in."""
    text = json.dumps(value, ensure_ascii=True)
    return _RAW.sub(lambda match: json.loads(f'"{match[1]}"'), text).encode("utf-8", "replace")


def damaged_json(value: Any, chance: random.Random) -> bytes:
    """A JSON text some of whose values are others, missing, double or damaged."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 6))):
        value = _changed(value, chance)
    content = json_bytes(value)
    return damaged_bytes(content, chance) if chance.random() < 0.12 else content


def _changed(value: Any, chance: random.Random) -> Any:
    """One change, somewhere in a value."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        action = chance.random()
        if action < 0.08:
            del value[key]
        elif action < 0.12:
            value[chance.choice(("x", "", "0", "extra", "head_dim", "type"))] = value[key]
        elif action < 0.5:
            value[key] = _changed(value[key], chance)
        else:
            value[key] = _hostile(chance)
        return value
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        action = chance.random()
        if action < 0.1:
            del value[place]
        elif action < 0.2:
            value.append(copy.deepcopy(value[place]))
        elif action < 0.6:
            value[place] = _changed(value[place], chance)
        else:
            value[place] = _hostile(chance)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice((-1, 1, -value, value, 2**31, 2**63))
    if isinstance(value, str) and value and chance.random() < 0.4:
        return damaged_text(value, chance)
    return _hostile(chance)


def _hostile(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(HOSTILE))


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes that were flipped, cut, doubled, moved or filled with others."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, size = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 64, 1000))
        kind = chance.randrange(7)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size]
        elif kind == 3:
            data[place : place + size] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF))]) * size
        elif kind == 4:
            data[place : place + size] = chance.randbytes(size)
        elif kind == 5:
            number = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1, 1 << 63))
            data[place : place + 8] = number.to_bytes(8, "little")
        elif chance.random() < 0.3:
            del data[place:]
    return bytes(data)


def damaged_text(text: str, chance: random.Random, pieces: Sequence[str] = ()) -> str:
    """A text some of whose lines or characters are others, missing, double, or some pieces."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        place, size = chance.randrange(len(text) + 1), chance.choice((1, 1, 3, 10, 40))
        other = chance.choice(pieces) if pieces else chance.choice(("\0", '"', "{", "]", "\ud800"))
        before, here, after = text[:place], text[place : place + size], text[place + size :]
        text = chance.choice(
            (before + after, before + other + here + after, before + here * 2 + after,
             before + other + after)
        )  # fmt: skip
    return text
