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
    heard: asyncio.Queue[tuple[int, Event] | Exception | None] = asyncio.Queue(_HELD)

    async def read(index: int, stream: AnswerStream) -> None:
        try:
            async for event in stream:
                await heard.put((index, event))
            await heard.put(None)
        except Exception as error:
            await heard.put(error)

    readers = [asyncio.create_task(read(*one)) for one in enumerate(streams)]
    still = len(readers)
    try:
        while still:
            what = await heard.get()
            if isinstance(what, Exception):
                raise what
            if what is None:
                still -= 1
            else:
                yield what
    finally:
        for stream in streams:
            stream.close()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
