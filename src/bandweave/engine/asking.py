"""Asking: the ways to ask whatever takes requests: all together, or as a stream of tokens.

Over ``submit`` alone, so that an engine and a cluster are asked alike. Knows no nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bandweave.generation.request import USUAL, CallOptions, Request, Result
from bandweave.routing.call import Call, Cancel, Deliver, Event, NewTokens, Reading, Stream

if TYPE_CHECKING:
    from bandweave.routing.async_stream import AsyncStream

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer
OnRead = Callable[[int], None]  # tokens of the prompts that have been read


class Asking(ABC):
    """Any number of threads and asyncio tasks may ask at a time; their requests share the steps."""

    @abstractmethod
    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        options: CallOptions = USUAL,
    ) -> Cancel:
        """Asks for answers and returns at once; ``deliver`` hears of them in another thread, and
        must not wait. What comes back cancels one of them, or all, from any thread."""

    def generate(
        self,
        requests: Sequence[Request],
        *,
        on_token: OnToken = lambda index, token: None,
        on_read: OnRead = lambda tokens: None,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> list[Result]:
        """Answers all requests together and waits; ``on_token`` sees every token as it comes,
        ``on_read`` hears now and then how far long prompts have been read.

        ``chunk``, ``digest`` and ``reuse`` are those of ``CallOptions``. ``ValueError`` for a
        request that cannot be run; ``StepError`` names the node or layer that failed, where nobody
        goes on.
        """
        options = CallOptions(chunk=chunk, digest=digest, reuse=reuse)
        if not requests:
            return []
        call = Call(requests)
        cancel = self.submit(requests, call.deliver, options)
        over: set[int] = set()
        caught: BaseException | None = None

        def hear(event: Event) -> None:
            if isinstance(event, Reading):
                on_read(event.tokens)
            elif isinstance(event, NewTokens):
                for index, token in event.tokens:
                    if on_token(index, token) and index not in over:
                        over.add(index)
                        cancel(index)

        events = iter(call)
        while True:
            try:
                for event in events:
                    if caught is None:
                        hear(event)
                break
            except BaseException as error:  # the caller's, or Ctrl-C: nobody wants the rest
                if caught is not None:
                    raise
                caught, events = error, iter(call)
                cancel()
        if caught is not None:
            raise caught
        call.check()
        return [call.results[index] for index in range(len(requests))]

    def stream(self, request: Request, options: CallOptions = USUAL) -> Stream:
        """One request's tokens as they come, for a thread; see ``generate``."""
        call = Call([request])
        cancel = self.submit([request], call.deliver, options)
        return Stream(call, cancel)

    def stream_async(self, request: Request, options: CallOptions = USUAL) -> AsyncStream:
        """One request's tokens as they come, for a task of the running event loop."""
        from bandweave.routing.async_stream import AsyncStream

        submitted: list[Cancel] = []

        def cancel() -> None:
            for one in submitted:
                one()

        stream = AsyncStream(cancel)
        submitted.append(self.submit([request], stream.deliver, options))
        return stream
