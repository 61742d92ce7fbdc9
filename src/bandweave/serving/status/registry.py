"""Registry: the requests under way, and what all requests came to since the start.

Fed with the events of answers, in the event loop's thread; any thread may read. Knows no engine, no
HTTP and no protocol but by its name.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Event,
    Read,
    Text,
    Thought,
)
from bandweave.serving.status.counting import Distribution, Rate

#: Upper ends of ranges, in seconds.
FIRST_TOKEN_BOUNDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0,
)  # fmt: skip
BETWEEN_BOUNDS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0,
)  # fmt: skip
WHOLE_BOUNDS = (
    0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0,
    960.0,
)  # fmt: skip

Phase = Literal["waiting", "reading", "writing"]


class Registry:
    """``live``: the requests under way, by their number. Counts since the start: ``prompt_tokens``
    of the answers that have begun, ``cached_tokens`` of those whose prompts were looked up in the
    cache (``looked_up_tokens``), ``generated_tokens``, and ``outcomes`` by protocol and by how an
    answer or request ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self.live: dict[int, Live] = {}
        self.prompt_tokens = self.generated_tokens = 0
        self.cached_tokens = self.looked_up_tokens = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.first_token = Distribution(FIRST_TOKEN_BOUNDS)
        self.between_tokens = Distribution(BETWEEN_BOUNDS)
        self.whole = Distribution(WHOLE_BOUNDS)
        self.queue = Distribution(FIRST_TOKEN_BOUNDS)
        self.generating = Rate()

    def begin(self, ask: Ask, *, protocol: str, key: str) -> Live:
        """A request was asked. ``key``: the name of the key that asks, empty without keys."""
        live = Live(self, next(self._numbers), ask, protocol, key, self._clock())
        self.live[live.number] = live
        return live

    def refuse(self, protocol: str) -> None:
        """A request was turned away, since too many wait."""
        self.outcomes[protocol, "refused"] += 1

    def tick(self) -> None:
        """Called now and then, for the rates."""
        now = self._clock()
        self.generating.see(now, self.generated_tokens)
        for live in list(self.live.values()):
            if live.generated:
                live.rate.see(now, live.generated)

    def now(self) -> float:
        return self._clock()


class Live:
    """One request under way. ``read``: tokens of its prompt that were read or are in the cache;
    ``generated``: tokens of all its answers; ``longest``: of the longest of them."""

    def __init__(
        self, registry: Registry, number: int, ask: Ask, protocol: str, key: str, since: float
    ) -> None:
        self._registry = registry
        self.number, self.protocol, self.key, self.since = number, protocol, key, since
        self.prompt, self.choices, self.reuse = len(ask.tokens), ask.choices, ask.reuse
        self.read = self.generated = self.longest = 0
        self.cached: int | None = None
        self.rate = Rate(3.0)
        self._counts = [0] * ask.choices
        self._last = [0.0] * ask.choices
        self._ended = 0

    @property
    def phase(self) -> Phase:
        return "writing" if self.generated else "reading" if self.read else "waiting"

    def hear(self, event: Event) -> None:
        """The next event of its answers."""
        if isinstance(event, (Text, Thought)):
            if event.tokens:
                self._count(event.choice, len(event.tokens))
        elif isinstance(event, (CallBegun, CallArguments)):
            self._count(event.choice, 1)  # at least, as some went before; the end knows them all
        elif isinstance(event, Read):
            self.read = max(self.read, event.tokens)
        elif isinstance(event, End):
            self._end(event)

    def close(self, outcome: str) -> None:
        """Nothing more comes: answers that have not ended ended so."""
        registry = self._registry
        if registry.live.pop(self.number, None) is not None and self._ended < self.choices:
            registry.outcomes[self.protocol, outcome] += self.choices - self._ended

    def _count(self, choice: int, tokens: int) -> None:
        registry, now = self._registry, self._registry.now()
        if not self._counts[choice]:
            self.read = self.prompt
            registry.prompt_tokens += self.prompt
            registry.first_token.add(now - self.since)
            if tokens > 1:  # they came together
                registry.between_tokens.add(0.0, tokens - 1)
        else:
            gap = now - self._last[choice]
            registry.between_tokens.add(gap / tokens, tokens)
        if not self.generated:
            self.rate.see(now, tokens)
        self._last[choice] = now
        self._counts[choice] += tokens
        self.generated += tokens
        self.longest = max(self.longest, self._counts[choice])
        registry.generated_tokens += tokens

    def _end(self, end: End) -> None:
        registry = self._registry
        # Tokens without a text of their own, such as an end token or the signs around a call, are
        # told at the end alone. Those of a call may have been told twice, by its name and its
        # arguments.
        silent = len(end.tokens) - self._counts[end.choice]
        if silent > 0:
            self._count(end.choice, silent)
        self._ended += 1
        timing = end.timing
        if self._counts[end.choice]:
            registry.queue.add(timing.waiting)
            if self.reuse:
                registry.looked_up_tokens += self.prompt
                registry.cached_tokens += end.cached_tokens
        self.cached = max(self.cached or 0, end.cached_tokens)
        registry.whole.add(registry.now() - self.since)
        registry.outcomes[self.protocol, end.reason] += 1
