"""JSON that comes piece by piece: checked, and given on as it comes."""

from __future__ import annotations

import json
import re

from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Put, Reader, Reading

MOST_DEPTH = 64
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BARE = re.compile(r"[-+.0-9A-Za-z]+")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_ESCAPED = '"\\/bfnrt'


class WrongJson(Exception):
    """What comes is no JSON."""


class UnfinishedJson(Exception):
    """The text ends within a value."""


def value(reader: Reader, put: Put) -> Reading[None]:
    """Takes one value, white space before it included. Control characters in strings, which JSON
    has not and models write, become escapes."""
    closers: list[str] = []
    wants = "value"  # or "key", "colon", "next"; "first" value or key, where there may be none
    while True:
        put((yield from reader.spaces()))
        character = yield from _next(reader)
        if wants == "first" and character == closers[-1]:
            closers.pop()
        elif wants == "next":
            if character != closers[-1]:
                if character != ",":
                    raise WrongJson
                put(_take(reader))
                wants = "key" if closers[-1] == "}" else "value"
                continue
            closers.pop()
        elif wants == "colon":
            if character != ":":
                raise WrongJson
            put(_take(reader))
            wants = "value"
            continue
        elif wants == "key" or (wants == "first" and closers[-1] == "}"):
            yield from string(reader, put)
            wants = "colon"
            continue
        elif character in "{[":
            closers.append("}" if character == "{" else "]")
            if len(closers) > MOST_DEPTH:
                raise WrongJson
            put(_take(reader))
            wants = "first"
            continue
        elif character == '"':
            yield from string(reader, put)
            if not closers:
                return
            wants = "next"
            continue
        else:
            yield from _scalar(reader, put)
            if not closers:
                return
            wants = "next"
            continue
        put(_take(reader))  # what closes
        if not closers:
            return
        wants = "next"


def string(reader: Reader, put: Put) -> Reading[None]:
    """Takes a string, with its quotes."""
    if (yield from _next(reader)) != '"':
        raise WrongJson
    put(_take(reader))
    while True:
        character = yield from _next(reader)
        if character == '"':
            put(_take(reader))
            return
        if character == "\\":
            yield from _escape(reader, put)
        elif character < " ":
            put(json.dumps(_take(reader))[1:-1])
        else:
            found = _PLAIN.match(reader.text, reader.at)
            assert found is not None
            reader.at = found.end()
            put(shown(found[0]))


def captured(reader: Reader) -> Reading[str]:
    """Takes a string: what it says."""
    pieces: list[str] = []
    yield from string(reader, pieces.append)
    return json.loads("".join(pieces))


def written(value: object) -> str:
    """A value as JSON. ``ValueError`` for numbers that are none."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Half a character, which escapes can write, has no bytes of its own.
    return text if text.isascii() or _is_unicode(text) else json.dumps(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _escape(reader: Reader, put: Put) -> Reading[None]:
    piece = _take(reader)
    character = yield from _next(reader)
    piece += _take(reader)
    if character == "u":
        for _ in range(4):
            if (yield from _next(reader)) not in "0123456789abcdefABCDEF":
                raise WrongJson
            piece += _take(reader)
    elif character not in _ESCAPED:
        raise WrongJson
    put(piece)


def _scalar(reader: Reader, put: Put) -> Reading[None]:
    """A number, true, false or null, given on as one piece."""
    text = ""
    while (yield from reader.more()):
        found = _BARE.match(reader.text, reader.at)
        if found is None:
            break
        text += found[0]
        reader.at = found.end()
    if text not in ("true", "false", "null") and not _NUMBER.fullmatch(text):
        raise UnfinishedJson if reader.ended and reader.at == len(reader.text) else WrongJson
    put(text)


def _next(reader: Reader) -> Reading[str]:
    if not (yield from reader.more()):
        raise UnfinishedJson
    return reader.text[reader.at]


def _take(reader: Reader) -> str:
    reader.at += 1
    return reader.text[reader.at - 1]
