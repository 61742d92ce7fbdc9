"""Caller: asks a server one question over a plain socket, and may hang up anywhere.

Knows HTTP; knows no protocol above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time
from dataclasses import dataclass

from benchmarks.crowd import Question

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset
_LINE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a caller hangs up: when ``sent`` bytes of its request are sent, or ``heard`` bytes of
    the answer have come and ``seconds`` have passed since. ``reset``: it says no goodbye."""

    sent: int | None = None
    heard: int = 0
    seconds: float = 0.0
    reset: bool = False


@dataclass(frozen=True, kw_only=True)
class Heard:
    """``status``: of HTTP, 0 where the caller hung up before. ``ended``: whether the answer came
    whole. ``retry_after``: seconds that the server named."""

    status: int
    ended: bool
    content: bytes
    asked: float
    first: float
    last: float
    retry_after: float | None = None

    @property
    def tokens(self) -> int:
        """Of the answer, as the server counted them."""
        counts = re.findall(rb'"completion_tokens": ?(\d+)', self.content)
        return int(counts[-1]) if counts else 0


async def ask(
    port: int, question: Question, cut: Cut | None = None, patience: float = 300.0
) -> Heard:
    """``TimeoutError`` where the answer takes longer than ``patience`` seconds."""
    async with asyncio.timeout(patience):
        return await _ask(port, question, cut)


async def _ask(port: int, question: Question, cut: Cut | None) -> Heard:
    asked = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES)
    heard = _Heard(asked)
    try:
        head = (
            f"POST {question.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(question.body)}\r\n\r\n"
        )
        request = head.encode() + question.body
        if cut is not None and cut.sent is not None:
            writer.write(request[: cut.sent])
            await writer.drain()
            await asyncio.sleep(cut.seconds)
        else:
            writer.write(request)
            await writer.drain()
            await heard.listen(reader, None if cut is None else cut.heard)
            if cut is not None:
                await asyncio.sleep(cut.seconds)
    finally:
        if cut is not None and cut.reset:
            _reset(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return heard.result()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _Heard:
    """What comes, up to the end or so many bytes."""

    def __init__(self, asked: float) -> None:
        self._asked = self._first = self._last = asked
        self._bytes = b""
        self._ended = False

    async def listen(self, reader: asyncio.StreamReader, most: int | None) -> None:
        pieces: list[bytes] = []
        count = 0
        while most is None or count < most:
            piece = await reader.read(1 << 16)
            self._last = time.monotonic()
            if not piece:
                break
            if not pieces:
                self._first = self._last
            pieces.append(piece)
            count += len(piece)
        self._bytes = b"".join(pieces)

    def result(self) -> Heard:
        head, _, content = self._bytes.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        status = int(words[1]) if len(words) > 1 else 0
        headers = dict(_pair(line) for line in head.split(b"\r\n")[1:])
        if headers.get(b"transfer-encoding") == b"chunked":
            ended = content.endswith(b"\r\n0\r\n\r\n") or content == b"0\r\n\r\n"
        else:
            ended = len(content) == int(headers.get(b"content-length", b"-1"))
        wait = headers.get(b"retry-after")
        return Heard(
            status=status, ended=ended, content=content, asked=self._asked, first=self._first,
            last=self._last, retry_after=None if wait is None else float(wait),
        )  # fmt: skip


def _pair(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip().lower()
