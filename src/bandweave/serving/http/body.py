"""Contents of requests: read within bounds of size, depth and time, and found to be JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from starlette.requests import ClientDisconnect, Request

from bandweave.serving.errors import ApiError, bad, unavailable
from bandweave.serving.fields import Fields
from bandweave.serving.http.limits import Limits
from bandweave.shown import printable, shown

LEAST_BYTES, MOST_BYTES = 4 << 20, 32 << 20
_BYTES_OF_TOKEN = 64  # JSON for a token of the context, with room for what is not in the prompt
_MOST_DEPTH = 64
_MOST_VALUES = 1_000_000
_LONGEST_NAME = 80  # in errors
_QUICK_BYTES = 64 << 10  # which the event loop reads itself


class Contents:
    """How many bytes of contents are held at the moment, of all requests. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0


async def read_fields(request: Request, *, context: int = 0) -> Fields:
    """The JSON object of a request's content. ``context``: tokens that the model may read, for
    which there is room. ``ApiError`` for anything else."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise ApiError(415, f"the body is {kind[:80]!r}; send application/json")
    most = min(MOST_BYTES, max(LEAST_BYTES, context * _BYTES_OF_TOKEN))
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > most):
        raise _too_large(most)
    contents: Contents = request.app.state.contents
    content = bytearray()
    try:
        await _receive(request, content, most, contents)
        if len(content) <= _QUICK_BYTES:
            return Fields(_parse(content))
        return Fields(await asyncio.to_thread(_parse, content))
    finally:
        contents.held -= len(content)


async def _receive(request: Request, content: bytearray, most: int, contents: Contents) -> None:
    limits = contents.limits
    try:
        async with asyncio.timeout(limits.body):
            async for piece in request.stream():
                if len(content) + len(piece) > most:
                    raise _too_large(most)
                if contents.held + len(piece) > limits.content_bytes:
                    raise unavailable("the server has too many requests to read at once", 1.0)
                content += piece
                contents.held += len(piece)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {limits.body:g} s") from error
    except ClientDisconnect as error:
        raise ApiError(400, "the client has gone") from error


def _parse(content: bytearray) -> Any:
    # Before anything is built of them: a value takes twenty times the memory of its bytes.
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise bad(f"the body has more than {_MOST_VALUES} values")
    try:
        value = json.loads(
            content, parse_constant=_refuse_constant, object_pairs_hook=_without_doubles
        )
    except RecursionError as error:
        raise bad("the body is nested too deeply") from error
    except ValueError as error:
        raise bad(f"the body is no JSON: {str(error)[:200]}") from error
    _check(value)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of what is said twice nobody knows which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise bad(f"the body has {shown(name)} twice in one object", _named(name))
            seen.add(name)
    return found


def _check(value: Any) -> None:
    """Bounds the depth, and refuses text that is no Unicode: nobody behind need look for it."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if not all(map(_is_unicode, one)):
                    raise _no_unicode(one, value)
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str) and not _is_unicode(one):
                raise _no_unicode(one, value)
        if not below:
            return
        level = below
    raise bad(f"the body is nested more than {_MOST_DEPTH} deep")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_unicode(wrong: Any, body: Any) -> ApiError:
    """For a text, or an object with such a name, that stands in the body."""
    level, path = [(body, "")], ""
    while level:
        path = next((path for one, path in level if one is wrong), "")
        if path:
            break
        level = [
            (inner, f"{path}{place}".removeprefix("."))
            for one, path in level
            for place, inner in _members(one)
        ]
    return bad(f"{path or 'the body'} has a lone surrogate; text must be Unicode", path or None)


def _members(value: Any) -> Iterable[tuple[str, Any]]:
    """What stands in a value, and how errors go on to it."""
    if isinstance(value, dict):
        return ((f".{_named(name)}", one) for name, one in value.items())
    if isinstance(value, list):
        return ((f"[{index}]", one) for index, one in enumerate(value))
    return ()


def _named(name: str) -> str:
    return printable(name[:_LONGEST_NAME])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most >> 20} MiB")
