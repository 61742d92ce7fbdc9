"""Streams of server-sent events: one write for what is ready, and never a long silence.

A client that goes ends what it asked for; one that reads too slowly is cut off, for what it does
not take would grow here. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SILENCE_SECONDS = 8.0  # proxies and people give up after ten or more
_TAKING_SECONDS = 60.0  # for which a client may take nothing
_COMMENT = b": still at it\n\n"

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class EventStream(Response):
    """Sends the pieces of ``source``, each whole events, as they come. ``comment``: what breaks a
    silence, which clients skip."""

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        media_type: str = "text/event-stream",
        comment: bytes = _COMMENT,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._source, self._comment = source, comment
        super().__init__(
            media_type=media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})},
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writer = asyncio.create_task(self._write(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((writer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, gone):
                task.cancel()
            ended = await asyncio.gather(writer, gone, return_exceptions=True)
        if isinstance(ended[0], Exception) and not isinstance(ended[0], (OSError, ClientGone)):
            raise ended[0]

    async def _write(self, send: Send) -> None:
        async with contextlib.aclosing(_unbroken(self._source, self._comment)) as pieces:
            async for piece in pieces:
                async with asyncio.timeout(_TAKING_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unbroken(source: AsyncIterator[bytes], comment: bytes) -> AsyncIterator[bytes]:
    """The source's pieces, and a comment wherever it is silent for long."""
    iterator = aiter(source)
    following: asyncio.Task[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(_next(iterator))
            done, _ = await asyncio.wait((following,), timeout=SILENCE_SECONDS)
            if not done:
                yield comment
                continue
            try:
                piece = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield piece
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def _next(iterator: AsyncIterator[bytes]) -> bytes:
    return await anext(iterator)


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled if the client goes: ``ClientGone`` then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


EventSource = Callable[[], AsyncIterator[bytes]]
