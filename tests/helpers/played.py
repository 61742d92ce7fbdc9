"""Answers without an engine: events that a test wrote, as an answer's stream gives them."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from bandweave.generation.request import Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Event,
    Read,
    Reason,
    Text,
    Thought,
)

PIECES = ("Hello", " ", "there", "\n\n", "é", "東京", "👩‍🚀", "\u2028", "\x85", "data: x", '"', "{")


def ask(**changes: Any) -> Ask:
    """A prompt of ten tokens."""
    return Ask(tokens=tuple(range(10)), params=SamplingParams(max_tokens=50), **changes)


class Played:
    """As an ``AnswerStream``: gives ``events``, then fails if there is a ``failure``."""

    def __init__(self, events: Sequence[Event], failure: Exception | None = None) -> None:
        self.ask, self._events, self._failure = ask(), events, failure
        self.left = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self._events:
            yield event
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left = True


def end(reason: Reason = "stop", **changes: Any) -> End:
    values = {"tokens": tuple(range(7)), "timing": Timing(waiting=1.0, prefill=2.0, decode=4.0),
              "cached_tokens": 4, "thought_tokens": 2, **changes}  # fmt: skip
    return End(choice=0, reason=reason, **values)


def random_events(seed: int, *, names: Sequence[str] = ("weather", "clock")) -> list[Event]:
    """An answer that may think, speaks and calls tools in any order, in pieces of any size."""
    chosen = random.Random(seed)
    events: list[Event] = [Read(0), Read(10)]
    calls = 0
    for _ in range(chosen.randrange(6)):
        kind = chosen.choice(("thought", "text", "call"))
        if kind != "call":
            made = Thought if kind == "thought" else Text
            events += [made(0, chosen.choice((*PIECES, ""))) for _ in range(chosen.randrange(8))]
            continue
        arguments = {chosen.choice(PIECES): chosen.choice((1, -2.5, None, [True], {"a": "b\n"}))
                     for _ in range(chosen.randrange(4))}  # fmt: skip
        text = json.dumps(arguments, ensure_ascii=chosen.random() < 0.5)
        events.append(CallBegun(0, calls, f"call_{seed}_{calls}", chosen.choice(names)))
        cuts = sorted(chosen.randrange(len(text) + 1) for _ in range(chosen.randrange(5)))
        for start, stop in zip((0, *cuts), (*cuts, len(text)), strict=True):
            events.append(CallArguments(0, calls, text[start:stop]))
        calls += 1
    reason = "tool_calls" if calls else chosen.choice(("stop", "length"))
    return [*events, end(reason)]
