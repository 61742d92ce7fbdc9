"""Feed: one state of things for any number of listeners, encoded once.

A listener gets all of it first, and then what has changed. One that is too slow gets all of it
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any


class Feed:
    """Belongs to the event loop of its first listener; ``publish`` is for any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._values: Mapping[str, Any] = {}
        self._full = self._changes = b""
        self._version = 0
        self._news: set[asyncio.Event] = set()
        self._over = False

    @property
    def listeners(self) -> int:
        return len(self._news)

    def publish(self, values: Mapping[str, Any]) -> None:
        """The state as it is now; nothing is encoded where nobody listens."""
        if self._loop is None or not self._news:
            return
        changes = {name: one for name, one in values.items() if self._values.get(name) != one}
        full, changed = event("status", values), event("changes", changes)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take, values, full, changed)

    def close(self) -> None:
        """Ends all listeners. In the loop's thread."""
        self._over = True
        for news in self._news:
            news.set()

    async def listen(self, first: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Server-sent events, for as long as somebody takes them. ``first``: the state now."""
        self._loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._news.add(news)
        seen = -1  # what comes first is not one of those that are published
        try:
            yield event("status", first)
            while not self._over:
                await news.wait()
                news.clear()
                if self._over:
                    return
                version = self._version
                yield self._changes if version == seen + 1 else self._full
                seen = version
        finally:
            self._news.discard(news)

    def _take(self, values: Mapping[str, Any], full: bytes, changes: bytes) -> None:
        self._values, self._full, self._changes = values, full, changes
        self._version += 1
        for news in self._news:
            news.set()


def event(name: str, values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"event: {name}\ndata: {text}\n\n".encode()
