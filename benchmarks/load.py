"""Load on a server: many streams of OpenAI completions at a time, and when their tokens came.

Speaks HTTP over plain sockets, so that the client takes little of the processors that the server
computes on. Knows the wire; knows no servers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np

_PATIENCE_SECONDS = 1800.0
_LINE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt of random ``prompt_tokens`` from ``seed``, and ``new_tokens`` to come; ``after``
    seconds from the start of all. Two of one seed begin alike, and with ``reuse`` the later one may
    begin with what the cache holds of the earlier."""

    prompt_tokens: int
    new_tokens: int
    seed: int
    after: float = 0.0
    reuse: bool = False

    def body(self, vocab_size: int) -> bytes:
        tokens = np.random.default_rng(self.seed).integers(300, vocab_size, self.prompt_tokens)
        return json.dumps(
            {
                "prompt": tokens.tolist(),
                "max_tokens": self.new_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "cache_prompt": self.reuse,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()


@dataclass(kw_only=True)
class Heard:
    """Of one ask: when it was ``asked``, and when pieces came, in seconds of one clock; how many
    ``tokens`` the server counted."""

    asked: float = 0.0
    came: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.came[0] - self.asked

    @property
    def between(self) -> list[float]:
        """Seconds between tokens."""
        return np.diff(self.came).tolist()


def load(port: int, asks: Sequence[Ask], vocab_size: int) -> list[Heard]:
    """Sends all and waits for all. ``RuntimeError`` where the server refuses one."""
    return asyncio.run(_load(port, asks, vocab_size))


async def _load(port: int, asks: Sequence[Ask], vocab_size: int) -> list[Heard]:
    bodies = [ask.body(vocab_size) for ask in asks]
    tasks = [_ask(port, ask, body) for ask, body in zip(asks, bodies, strict=True)]
    async with asyncio.timeout(_PATIENCE_SECONDS):
        return list(await asyncio.gather(*tasks))


async def _ask(port: int, ask: Ask, body: bytes) -> Heard:
    await asyncio.sleep(ask.after)
    heard = Heard(asked=time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES)
    try:
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async for data in _events(reader):
            now = time.perf_counter()
            if "error" in data:
                raise RuntimeError(f"the server answers {data}")
            choices = data.get("choices") or [{}]
            # A single token may be no text: then its end is heard.
            if choices[0].get("text") or (choices[0].get("finish_reason") and not heard.came):
                heard.came.append(now)
            heard.tokens = (data.get("usage") or {}).get("completion_tokens", heard.tokens)
    finally:
        writer.close()
    if not heard.came:
        raise RuntimeError("the server said nothing")
    return heard


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[dict]:
    """The JSON objects of a stream of events."""
    status = await reader.readline()
    while (await reader.readline()).strip():
        pass
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r}: {await reader.read(500)!r}")
    rest = b""
    async for piece in _chunks(reader):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).strip() or b"0", 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
