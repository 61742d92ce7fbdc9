"""AsyncStream: one request's tokens for a task of an event loop.

Apart from ``call``, for asyncio takes commands a tenth of a second to import.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

from bandweave.generation.request import Result
from bandweave.routing.call import Ended, Event, Failed, NewTokens


class AsyncStream:
    """As ``Stream``, for a task of the event loop that makes it."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._outcome: Result | Exception | None = None

    def deliver(self, event: Event) -> None:
        """From any thread. ``RuntimeError`` once the loop is closed."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def cancel(self) -> None:
        """Ends the answer; the iteration ends soon after."""
        self._cancel()

    async def result(self) -> Result:
        """Waits for the end; see ``Stream.result``."""
        async for _ in self:
            pass
        assert isinstance(self._outcome, Result)
        return self._outcome

    async def __aiter__(self) -> AsyncIterator[int]:
        while self._outcome is None:
            event = await self._events.get()
            if isinstance(event, NewTokens):
                for _, token in event.tokens:
                    yield token
            elif isinstance(event, Ended):
                self._outcome = event.result
            elif isinstance(event, Failed):
                self._outcome = event.error
        if isinstance(self._outcome, Exception):
            raise self._outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel()
