"""Streams: clients that ask one question after the other, and note when every piece came.

Speaks HTTP over plain sockets, so that it takes little of the processors that the nodes compute on.
Knows no nodes and no faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.answers import NoAnswer, says_something, told
from benchmarks.crowd import Question

_LINE_BYTES = 1 << 22


@dataclass(kw_only=True)
class Heard:
    """One answer. Times in seconds of the monotonic clock: when it was ``asked``, when pieces
    ``came``, when it was ``over`` (None while it goes on). ``failure``: why it is none; empty for a
    good one, whose text is ``text``."""

    number: int
    asked: float
    came: list[float] = field(default_factory=list)
    over: float | None = None
    text: str = ""
    failure: str = ""


@dataclass(kw_only=True)
class Crowd:
    """Clients, one for each question, that ask it again and again. ``truth``: what each question's
    answer is, as far as that is known; the others are noted there when they come first."""

    port: int
    questions: Sequence[Question]
    patience: float
    truth: dict[int, str] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    lost: list[Heard] = field(default_factory=list)
    changed: list[Heard] = field(default_factory=list)

    async def once(self) -> None:
        """Every question once, all at a time."""
        await asyncio.gather(*(self._ask(number) for number in range(len(self.questions))))

    async def until(self, over: asyncio.Event) -> None:
        """Again and again until then; answers that have begun come to their ends."""

        async def client(number: int) -> None:
            while not over.is_set():
                if (await self._ask(number)).failure:  # a refusal comes at once
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(client(number) for number in range(len(self.questions))))

    async def _ask(self, number: int) -> Heard:
        question = self.questions[number]
        heard = Heard(number=number, asked=time.monotonic())
        self.heard.append(heard)
        try:
            async with asyncio.timeout(self.patience):
                content = await _post(self.port, question, heard)
            heard.text = told(question.path, content)
        except (OSError, NoAnswer, TimeoutError, asyncio.IncompleteReadError) as error:
            said = str(error) or type(error).__name__
            heard.failure = f"{question.kind}: {said}"
            self.lost.append(heard)
        heard.over = time.monotonic()
        if not heard.failure and self.truth.setdefault(number, heard.text) != heard.text:
            self.changed.append(heard)
        return heard


async def get(port: int, path: str, seconds: float = 10.0) -> bytes:
    """The content at a path of the server; ``OSError`` or ``TimeoutError`` where there is none."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES)
        with contextlib.closing(writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                         .encode())  # fmt: skip
            return await _body(reader, None)


async def _post(port: int, question: Question, heard: Heard) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES)
    with contextlib.closing(writer):
        head = (
            f"POST {question.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(question.body)}\r\n\r\n"
        )
        writer.write(head.encode() + question.body)
        return await _body(reader, heard)


async def _body(reader: asyncio.StreamReader, heard: Heard | None) -> bytes:
    status = await reader.readline()
    length: int | None = None
    while line := (await reader.readline()).strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    if b" 200 " not in status:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            status += await reader.read(600)
        raise NoAnswer(f"refused: {status.decode(errors='replace')!r}")
    if length is not None:
        content = await reader.readexactly(length)
        if heard is not None:
            heard.came.append(time.monotonic())
        return content
    content, rest = b"", b""
    async for piece in _chunks(reader):
        content += piece
        *lines, rest = (rest + piece).split(b"\n")
        if heard is not None and any(says_something(line) for line in lines):
            heard.came.append(time.monotonic())
    return content


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = (await reader.readline()).strip()
        if not line:
            raise NoAnswer("the connection ended in the midst of it")
        if not (size := int(line, 16)):
            return
        yield await reader.readexactly(size)
        await reader.readexactly(2)
