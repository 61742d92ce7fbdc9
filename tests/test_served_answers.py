"""Served answers are those of one caller on one node: whatever the split, the company, the keys,
the order of admission, the pages that are left and what was cached before."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from typing import Any

import llguidance
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.routing.call import Ended, Event, Failed, NewTokens
from bandweave.run_options import RunOptions
from bandweave.serving.texts import open_tokenizer
from bandweave.text.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
WARM = SamplingParams(temperature=1.1, top_p=0.95, seed=11, max_tokens=24)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"type": "integer"}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
OBJECT = llguidance.LLMatcher.grammar_from_json_schema(SCHEMA)
DIGITS = llguidance.LLMatcher.grammar_from_regex("[0-9]{3}-[0-9]{2}")
SPLITS: Sequence[tuple[tuple[int, ...], int, str]] = (
    ((1,), 1, "off"),
    ((2, 1), 1, "off"),
    ((1, 1, 1), 3, "off"),
    ((1, 2), 1, "ngram"),
)

Heard = tuple[tuple[int, ...], str, tuple[TokenLogprobs | None, ...], tuple[TokenLogprobs, ...]]


def asks(tokenizer: Tokenizer) -> list[Request]:
    """Greedy and sampled, biased and penalised, scored, with grammars, several of one prompt."""
    text = "A link carries the answer of a layer from one machine to another. "
    shared = tokenizer.encode(text * 6)
    end = frozenset(tokenizer.eos_token_ids)
    found = [
        Request(tokens=(*shared, *tokenizer.encode(text)), params=params, end_tokens=end, **more)
        for text, params, more in _kinds()
    ]
    several = replace(found[2], params=replace(WARM, max_tokens=60))
    return [*found, *(replace(several, choice=choice) for choice in range(1, 4))]


def _kinds() -> tuple[tuple[str, SamplingParams, dict[str, Any]], ...]:
    return (
        ("What is memory?", GREEDY, {}),
        ("What is memory?", replace(WARM, repetition_penalty=1.2), {"logprobs": 3, "key": "a"}),
        ("Give an object.", replace(WARM, max_tokens=60), {"grammar": OBJECT, "key": "b"}),
        ("Give a number.", replace(WARM, max_tokens=60), {"grammar": DIGITS, "logprobs": 0}),
        ("Why?", replace(GREEDY, biased=(17, 40), biases=(-1e4, 3.0)), {"key": "a"}),
        ("How fast?", replace(GREEDY, max_tokens=1), {"logprobs": 1, "scored": True}),
    )


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Engine]]:
    with ExitStack() as stack:
        folder = stack.enter_context(Folder.open(demo_folder()))
        tokenizer = open_tokenizer(folder)
        texts = [tokenizer.text_bytes(token) for token in range(folder.spec.vocab_size)]
        started = []
        for shares, stages, speculate in SPLITS:
            options = EngineOptions(
                shares=tuple(map(Fraction, shares)), stages=stages, threads=1,
                run=RunOptions(context=384, streams=2, speculate=speculate, max_rows=48),
            )  # fmt: skip
            started.append(stack.enter_context(Engine.start(folder, options, ThreadLauncher())))
            started[-1].learn(texts, tokenizer.eos_token_ids)
        yield started


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    with Folder.open(demo_folder()) as folder:
        return asks(open_tokenizer(folder))


@pytest.fixture(scope="module")
def expected(engines: list[Engine], requests: list[Request]) -> list[Heard]:
    """Each alone, on one node, from its start."""
    return [ask(engines[0], [one], reuse=False)[0] for one in requests]


def ask(engine: Engine, requests: Sequence[Request], *, reuse: bool = True) -> list[Heard]:
    tokens: list[list[int]] = [[] for _ in requests]
    told: list[list[TokenLogprobs | None]] = [[] for _ in requests]
    results: dict[int, Result] = {}
    over = threading.Event()
    failures: list[Exception] = []

    def deliver(event: Event) -> None:
        if isinstance(event, NewTokens):
            for place, (index, token) in enumerate(event.tokens):
                tokens[index].append(token)
                told[index].append(event.logprobs[place] if event.logprobs else None)
        elif isinstance(event, Ended):
            results[event.index] = event.result
        elif isinstance(event, Failed):
            failures.append(event.error)
        if failures or len(results) == len(requests):
            over.set()

    engine.submit(requests, deliver, CallOptions(reuse=reuse))
    assert over.wait(60) and not failures, failures
    for index, result in results.items():
        assert result.tokens == tuple(tokens[index])
    return [
        (results[index].tokens, results[index].reason, tuple(told[index]),
         results[index].prompt_logprobs)
        for index in range(len(requests))
    ]  # fmt: skip


@pytest.mark.parametrize("split", range(len(SPLITS)))
def test_all_together_are_as_each_alone(
    engines: list[Engine], requests: list[Request], expected: list[Heard], split: int
) -> None:
    engine = engines[split]
    assert ask(engine, requests) == expected  # pages for two contexts: some give way
    assert ask(engine, requests[::-1]) == expected[::-1]  # and what they left is used


def test_several_answers_to_one_prompt_differ(expected: list[Heard]) -> None:
    assert len({heard[0] for heard in (expected[2], *expected[6:])}) > 1


def test_pages_ran_short_and_prompts_were_shared(engines: list[Engine]) -> None:
    states = [engine.state() for engine in engines]
    assert any(state.preempted for state in states)
    assert all(state.running == state.waiting == 0 for state in states)
    assert all(state.ended >= 18 and sum(state.durations) == state.steps for state in states)


def test_grammars_hold(
    engines: list[Engine], requests: list[Request], expected: list[Heard]
) -> None:
    import json
    import re

    with Folder.open(demo_folder()) as folder:
        tokenizer = open_tokenizer(folder)
    for request, (tokens, reason, *_) in zip(requests, expected, strict=True):
        text = tokenizer.decode(tokens)
        if request.grammar == OBJECT and reason == "stop":
            found = json.loads(text)
            assert len(found["name"]) <= 6 and isinstance(found["size"], int)
        if request.grammar == DIGITS:
            assert reason == "stop" and re.fullmatch("[0-9]{3}-[0-9]{2}", text)


def test_embeddings_are_those_of_one_node(engines: list[Engine], requests: list[Request]) -> None:
    asked = [replace(one, embeds=True, grammar="", choice=0) for one in requests[:6]]
    alone = [engines[0].generate([one], reuse=False)[0] for one in asked]
    sizes = {len(result.embedding) for result in alone}
    assert len(sizes) == 1 and sizes.pop() > 32
    assert alone[0].embedding == alone[1].embedding != alone[2].embedding  # by the prompt alone
    for split in range(4):
        together = engines[split].generate([*asked, *requests])
        assert [one.embedding for one in together[:6]] == [one.embedding for one in alone]
        assert not any(one.embedding for one in together[6:])


def test_what_is_no_grammar_is_refused_alone(
    engines: list[Engine], requests: list[Request], expected: list[Heard]
) -> None:
    """And the others that came with it never began."""
    heard: list[Event] = []
    failed = threading.Event()

    def deliver(event: Event) -> None:
        heard.append(event)
        failed.set()

    engines[1].submit([requests[0], replace(requests[1], grammar="( no grammar")], deliver)
    assert failed.wait(30)
    (event,) = heard
    assert isinstance(event, Failed) and "grammar cannot be used" in str(event.error)
    assert ask(engines[1], requests[:1]) == expected[:1]
