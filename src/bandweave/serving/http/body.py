"""Bodies of requests: read within bounds of size, depth and time, and found to be JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from bandweave.serving.errors import ApiError, bad
from bandweave.serving.fields import Fields

MOST_BYTES = 32 << 20
_MOST_DEPTH = 64
_SECONDS = 60.0


async def read_fields(request: Request, *, most: int = MOST_BYTES) -> Fields:
    """The JSON object of a request's body. ``ApiError`` for anything else."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise ApiError(415, f"the body is {kind[:80]!r}; send application/json")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > most:
        raise _too_large(most)
    content = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for piece in request.stream():
                content += piece
                if len(content) > most:
                    raise _too_large(most)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise ApiError(400, "the client has gone") from error
    return Fields(_parse(bytes(content)))


def _parse(content: bytes) -> Any:
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise bad("the body is nested too deeply") from error
    except ValueError as error:
        raise bad(f"the body is no JSON: {str(error)[:200]}") from error
    _check(value)
    return value


def _check(value: Any) -> None:
    """Bounds the depth, and refuses text that is no Unicode: nobody behind need look for it."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key in one:
                    _check_text(key)
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                _check_text(one)
        if not below:
            return
        level = below
    raise bad(f"the body is nested more than {_MOST_DEPTH} deep")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad("the body has a lone surrogate; text must be Unicode") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most >> 20} MiB")
