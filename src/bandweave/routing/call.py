"""Call: some requests of one caller on their way, and what has been heard of them.

A thread takes events from a ``Call``; a ``Stream`` gives one request's tokens one by one. Knows no
nodes and no messages.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Request, Result
from bandweave.nodes.waiting import take


@dataclass(frozen=True)
class NewTokens:
    """``(request, token)`` in the order in which they were chosen; a request is its index in the
    call. ``logprobs[i]`` are of token ``i``; there are none where none were asked for."""

    tokens: Sequence[tuple[int, int]]
    logprobs: Sequence[TokenLogprobs | None] = ()


@dataclass(frozen=True)
class Reading:
    """So many ``tokens`` of the call's prompts have been read, ``each`` of its own."""

    tokens: int
    each: Sequence[int] = ()


@dataclass(frozen=True)
class Ended:
    """One request of the call has its result."""

    index: int
    result: Result


@dataclass(frozen=True)
class Failed:
    """Nothing more will come: a ``StepError`` of the nodes, or the ``ValueError`` of a request that
    cannot be run."""

    error: Exception


Event = NewTokens | Reading | Ended | Failed
Deliver = Callable[[Event], None]


class Cancel(Protocol):
    """What ends a call's requests."""

    def __call__(self, index: int | None = None) -> None:
        """Ends one of them, or all; from any thread, and no matter if they have ended."""
        ...


class Call:
    """The events of some requests, for one thread. Iteration ends with the last result, or with a
    failure, which ``check`` raises."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self.results: dict[int, Result] = {}
        self._failure: Exception | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def deliver(self, event: Event) -> None:
        """From any thread."""
        # Here, for Ctrl-C may hit whoever iterates at any place.
        if isinstance(event, Ended):
            self.results[event.index] = event.result
        elif isinstance(event, Failed):
            self._failure = event.error
        self._events.put(event)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __iter__(self) -> Iterator[Event]:
        while True:
            over = self._failure is not None or len(self.results) == len(self.requests)
            try:
                event = self._events.get_nowait() if over else take(self._events)
            except queue.Empty:
                return
            yield event


class Stream:
    """One request's tokens, for a thread: iterate over them. A context manager: whoever leaves it
    early has cancelled the rest."""

    def __init__(self, call: Call, cancel: Callable[[], None]) -> None:
        self._call, self._cancel = call, cancel
        self._events = iter(call)

    def cancel(self) -> None:
        """Ends the answer, from any thread; the iteration ends soon after."""
        self._cancel()

    def result(self) -> Result:
        """Waits for the end; tokens that nobody took are in there too. ``StepError`` and
        ``ValueError`` as in ``Engine.generate``."""
        for _ in self._events:
            pass
        self._call.check()
        return self._call.results[0]

    def __iter__(self) -> Iterator[int]:
        for event in self._events:
            if isinstance(event, NewTokens):
                yield from (token for _, token in event.tokens)
        self._call.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
