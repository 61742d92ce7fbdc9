"""Streams: one write for what is ready, and never a long silence. Knows no protocol.

A client that goes ends what it asked for. One that takes nothing holds up the source, whose
connection is cut off in the end (``protocol``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bandweave.serving.errors import ApiError
from bandweave.serving.http.failures import api_error

SILENCE_SECONDS = 8.0  # proxies and people give up after ten or more
_FIRST_SECONDS = 1.0  # in which an error still has a status of its own
_COMMENT = b": still at it\n\n"

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class EventStream(Response):
    """Sends the pieces of ``source``, each whole events, as they come.

    ``on_error``: what the protocol writes where the source fails in the midst of it; the stream
    ends behind it. ``comment``: what breaks a silence of ``silence`` seconds and clients skip,
    empty where the protocol has nothing like it.
    """

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        on_error: Callable[[ApiError], bytes],
        media_type: str = "text/event-stream",
        comment: bytes = _COMMENT,
        headers: dict[str, str] | None = None,
        silence: float | None = None,
    ) -> None:
        self._source, self._on_error, self._comment = source, on_error, comment
        self._silence = SILENCE_SECONDS if silence is None else silence
        self._first: asyncio.Task[bytes] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._ending = False
        self._written = 0.0  # the loop's time of the last piece
        super().__init__(
            media_type=media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})},
        )
        del self.headers["content-length"]

    async def begin(self, receive: Receive) -> None:
        """Waits a moment for the first piece: what the source raises instead is raised here, while
        it can still be answered with a status. ``ClientGone`` where nobody waits for it."""
        self._first = asyncio.create_task(_following(self._source))
        await while_there(receive, asyncio.wait((self._first,), timeout=_FIRST_SECONDS))
        if self._first.done():
            self._first.result()

    def end(self) -> None:
        """Lets the stream end where it stands, as if nothing more came."""
        self._ending = True
        if self._writer is not None:
            self._writer.cancel()

    async def close(self) -> None:
        """Ends the source. May be called more than once, and of a stream that never began."""
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._writer = asyncio.create_task(self._write(send))
        if self._ending:
            self._writer.cancel()
        tasks = [self._writer, asyncio.create_task(disconnected(receive))]
        if self._comment:
            tasks.append(asyncio.create_task(self._break_silence(send)))
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            gone = not self._writer.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()
        if not gone:
            if not self._writer.cancelled():
                self._writer.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        loop = asyncio.get_running_loop()

        async def write(piece: bytes) -> None:
            self._written = loop.time()
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        self._written = loop.time()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            if self._first is not None:
                await write(await self._first)
            async for piece in self._source:
                if piece:
                    await write(piece)
        except Exception as error:
            await write(self._on_error(api_error(error)))

    async def _break_silence(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.01, self._written + self._silence - loop.time()))
            if self._written and loop.time() - self._written >= self._silence:
                self._written = loop.time()
                await send({"type": "http.response.body", "body": self._comment, "more_body": True})


async def _following(source: AsyncIterator[bytes]) -> bytes:
    """The next piece that is not empty; empty at the end."""
    async for piece in source:
        if piece:
            return piece
    return b""


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled if the client goes: ``ClientGone`` then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Waits until the client has gone. The request's content has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
