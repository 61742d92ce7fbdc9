"""CountedStream: an answer stream of whose events account is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.events import Event
from bandweave.serving.status.registry import Live


class CountedStream(AnswerStream):
    """Another stream's events, as they are."""

    def __init__(self, stream: AnswerStream, live: Live) -> None:
        self.ask, self._stream, self._live = stream.ask, stream, live

    def cancel(self) -> None:
        self._stream.cancel()

    def fail(self, error: Exception) -> None:
        self._live.close("error")
        self._stream.fail(error)

    def close(self) -> None:
        self._live.close("cancelled")
        self._stream.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            async for event in self._stream:
                self._live.hear(event)
                yield event
        except Exception:
            self._live.close("error")
            raise
        finally:
            self._live.close("cancelled")
