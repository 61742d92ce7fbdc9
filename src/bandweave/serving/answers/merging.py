"""Merging: the events of several asks that were made together, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.events import Event

_HELD = 16  # events that wait for whoever reads slowly


async def merged(streams: Sequence[AnswerStream]) -> AsyncIterator[tuple[int, Event]]:
    """Which of the streams, and its event. Raises what the first of them raises, and cancels the
    others; so does whoever closes the iterator."""
    if len(streams) == 1:
        async with streams[0] as only:
            async for event in only:
                yield 0, event
        return
    heard: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(_HELD)

    async def read(index: int, stream: AnswerStream) -> None:
        async for event in stream:
            await heard.put((index, event))

    readers = [asyncio.create_task(read(*one)) for one in enumerate(streams)]
    over = asyncio.gather(*readers)
    try:
        while not (over.done() and heard.empty()):
            following = asyncio.ensure_future(heard.get())
            await asyncio.wait((following, over), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                over.result()  # raises, or the queue may have been filled at the same time
                continue
            yield following.result()
    finally:
        for stream in streams:
            stream.close()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, over, return_exceptions=True)
