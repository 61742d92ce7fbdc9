"""Streams that outlast their nodes: many kinds of requests at a time, all that is told of them, and
ways to harm the nodes meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.cluster import Cluster
from bandweave.engine.asking import Asking
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.local_launcher import LocalLauncher, ProcessHandle
from bandweave.routing.call import Ended, Event, Failed, NewTokens
from bandweave.serving.texts import open_tokenizer
from bandweave.text.tokenizer import Tokenizer

WARM = SamplingParams(temperature=0.9, top_p=0.95, seed=11, max_tokens=90)
GREEDY = replace(WARM, temperature=0.0)
_NUMBERS = "%llguidance {}\nstart: /[0-9]+( [0-9]+)*/"


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple((seed + 13 * i * i + 7 * i) % 500 + 3 for i in range(length))


@dataclass(frozen=True)
class Ask:
    """Requests that are made together."""

    requests: Sequence[Request]
    digest: bool = False


def asks(*, grammars: bool = True, embeds: bool = True) -> list[Ask]:
    """Of every kind; some read long prompts or wait while others answer. ``embeds``: the last layer
    is on node 0, and none drafts."""
    shared = prompt(5, 70)
    penalised = replace(WARM, repetition_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1)
    made = [
        Ask([Request(tokens=prompt(1, 9), params=GREEDY)]),
        Ask([Request(tokens=prompt(2, 30), params=WARM)], digest=True),
        Ask([Request(tokens=shared, params=WARM, choice=choice) for choice in range(3)]),
        Ask([Request(tokens=shared, params=penalised)], digest=True),
        Ask([Request(tokens=prompt(7, 12), params=WARM, logprobs=3)]),
        Ask([Request(tokens=prompt(8, 40), params=GREEDY, logprobs=1, scored=True)]),
        Ask([Request(tokens=prompt(9, 300), params=WARM)], digest=True),
        Ask([Request(tokens=prompt(3, 5) * 9, params=replace(GREEDY, max_tokens=200))]),
    ]
    if embeds:
        short = replace(WARM, max_tokens=1)
        made.append(Ask([Request(tokens=prompt(10, 12), params=short, embeds=True)]))
    if grammars:
        made.append(
            Ask([Request(tokens=prompt(11, 12), params=WARM, grammar=_NUMBERS)], digest=True)
        )
    return made


@dataclass
class Told:
    """All that was told of one ask."""

    ask: Ask
    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[TokenLogprobs]] = field(default_factory=list)
    results: dict[int, Result] = field(default_factory=dict)
    failure: Exception | None = None
    times: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in self.ask.requests]
        self.logprobs = [[] for _ in self.ask.requests]

    def hear(self, event: Event) -> None:
        if isinstance(event, NewTokens):
            self.times.append(time.monotonic())
            for place, (index, token) in enumerate(event.tokens):
                self.tokens[index].append(token)
                if event.logprobs and (one := event.logprobs[place]) is not None:
                    self.logprobs[index].append(one)
        elif isinstance(event, Ended):
            assert event.index not in self.results, "an answer ended twice"
            self.results[event.index] = event.result
        elif isinstance(event, Failed):
            self.failure = event.error
        if self.failure is not None or len(self.results) == len(self.ask.requests):
            self.over.set()

    @property
    def heart(self) -> list[tuple[object, ...]]:
        """What must not differ."""
        assert self.failure is None, self.failure
        hearts: list[tuple[object, ...]] = []
        for index, result in sorted(self.results.items()):
            assert list(result.tokens) == self.tokens[index], "a token was told twice, or never"
            hearts.append(
                (result.tokens, result.reason, result.logits_digest, result.digests,
                 result.prompt_logprobs, result.embedding, result.error,
                 tuple(self.logprobs[index]))
            )  # fmt: skip
        return hearts


class Streams:
    """All asks at a time."""

    def __init__(self, engine: Asking, asked: Sequence[Ask]) -> None:
        self.told = [Told(ask) for ask in asked]
        for one in self.told:
            engine.submit(one.ask.requests, one.hear, CallOptions(digest=one.ask.digest))

    @property
    def count(self) -> int:
        """Tokens so far."""
        return sum(len(tokens) for one in self.told for tokens in one.tokens)

    def wait_for(self, count: int, seconds: float = 60.0) -> None:
        """Until so many tokens have come."""
        deadline = time.monotonic() + seconds
        while self.count < count:
            assert time.monotonic() < deadline, f"{self.count} of {count} tokens"
            assert not all(one.over.is_set() for one in self.told)
            time.sleep(0.005)

    def hearts(self, seconds: float = 90.0) -> list[list[tuple[object, ...]]]:
        """Waits for all ends."""
        deadline = time.monotonic() + seconds
        for one in self.told:
            assert one.over.wait(max(0.0, deadline - time.monotonic())), one
        return [one.heart for one in self.told]

    def next_after(self, moment: float) -> float:
        """Seconds until some token came after a moment."""
        return min(at for one in self.told for at in one.times if at > moment) - moment


def learn(engine: Any, tokenizer: Tokenizer, size: int) -> None:
    texts = [tokenizer.added_bytes(token) for token in range(size)]
    engine.learn(texts, tokenizer.eos_token_ids)


@contextmanager
def cluster(
    folder: Folder, options: EngineOptions, *, grammars: bool = True
) -> Iterator[tuple[Cluster, LocalLauncher]]:
    launcher = LocalLauncher()
    with Cluster.start(folder, options, launcher) as one:
        if grammars:
            learn(one, open_tokenizer(folder), folder.spec.vocab_size)
        yield one, launcher


@cache
def undisturbed(
    path: str, options: EngineOptions, *, embeds: bool = True
) -> list[list[tuple[object, ...]]]:
    """What one node says."""
    from fractions import Fraction

    alone = replace(options, shares=(Fraction(1),))
    with Folder.open(path) as folder, Engine.start(folder, alone) as engine:
        learn(engine, open_tokenizer(folder), folder.spec.vocab_size)
        return Streams(engine, asks(embeds=embeds)).hearts()


def pids(launcher: LocalLauncher) -> dict[int, int]:
    """Process ids by the nodes' numbers."""
    handles = [one for one in launcher._handles if isinstance(one, ProcessHandle)]
    return {handle.node: handle.pid for handle in handles}


def harm(launcher: LocalLauncher, node: int, how: signal.Signals = signal.SIGKILL) -> float:
    """Does that to a node; the moment."""
    os.kill(pids(launcher)[node], how)
    return time.monotonic()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
