"""Biases, log-probabilities, scored prompts and grammars, over an engine without a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bandweave.executors.reference import math as reference_math
from bandweave.generation.generator import Generator
from bandweave.generation.logprobs import TokenLogprobs, token_logprobs
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams, sample
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from tests.helpers.prefix_executor import PrefixExecutor

VOCABULARY = 11
WARM = SamplingParams(temperature=1.0, seed=4, max_tokens=60)


def make(speculate: bool = False, max_rows: int = 32) -> Generator:
    fake = PrefixExecutor(num_pages=12, vocab_size=VOCABULARY)
    return Generator(
        fake, fake.embed, num_pages=12, context=320, max_rows=max_rows, vocab_size=VOCABULARY,
        exp=reference_math.exp,
        speculation=Speculation(NgramDrafter(), adaptive=False) if speculate else None,
    )  # fmt: skip


def test_figures_are_those_of_a_softmax() -> None:
    logits = np.random.default_rng(3).normal(0, 3, 1000).astype(np.float32)
    found = token_logprobs(logits, 17, 5, reference_math.exp)
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    order = np.argsort(-logits, kind="stable")[:5]
    assert found.ids == tuple(order)
    assert found.logprob == pytest.approx(expected[17], abs=2e-6)
    assert found.logprobs == pytest.approx(expected[order], abs=2e-6)


def test_no_figure_is_infinite() -> None:
    logits = np.array([0.0, -1e30, 88.0], np.float32)
    found = token_logprobs(logits, 1, 3, reference_math.exp)
    assert found.logprob == -9999.0 and all(map(math.isfinite, found.logprobs))
    assert token_logprobs(logits, 2, 0, reference_math.exp).ids == ()


def test_a_bias_rules_tokens_in_and_out() -> None:
    logits = np.array([3.0, 2.0, 1.0, 0.0], np.float32)
    greedy = SamplingParams(temperature=0.0)
    assert sample(logits, greedy, (), (), 0) == 0
    assert sample(logits, replace(greedy, biased=(0, 2), biases=(-1e4, 1.5)), (), (), 0) == 2
    warm = SamplingParams(biased=(3,), biases=(100.0,))
    assert {sample(logits, warm, (), (), position) for position in range(50)} == {3}
    assert not replace(greedy, biased=(1,), biases=(0.5,)).needs_best_only
    for tokens, biases in (((1,), ()), ((1, 1), (0.0, 0.0)), ((1,), (1e9,)), ((-1,), (0.0,))):
        with pytest.raises(ValueError):
            SamplingParams(biased=tokens, biases=biases)
    with pytest.raises(ValueError, match="token 11 has a bias.*11 tokens"):
        make().submit(0, Request(tokens=(1,), params=SamplingParams(biased=(11,), biases=(0.0,))))


@pytest.mark.parametrize("speculate", [False, True])
def test_every_token_has_its_figures(speculate: bool) -> None:
    request = Request(tokens=(1, 2, 3), params=WARM, logprobs=2)
    generator = make(speculate)
    generator.submit(0, request)
    told: list[TokenLogprobs | None] = []
    tokens: list[int] = []
    while generator.busy:
        events = generator.step()
        tokens += [token for _, token in events.tokens]
        told += events.logprobs
    plain = make().run([replace(request, logprobs=None)])[0]
    assert tuple(tokens) == plain.tokens and len(told) == len(tokens)
    assert all(one is not None and len(one.ids) == 2 for one in told)
    likely = [one.logprob == one.logprobs[0] for one in told if one is not None]
    assert 0 < sum(likely) < len(likely)


def test_figures_of_some_in_a_batch() -> None:
    generator = make()
    generator.submit(0, Request(tokens=(1, 2), params=WARM))
    generator.submit(1, Request(tokens=(3, 2), params=WARM, logprobs=0))
    while generator.busy:
        events = generator.step()
        for (id, _), logprobs in zip(events.tokens, events.logprobs, strict=True):
            assert (logprobs is None) == (id == 0)


@pytest.mark.parametrize("max_rows", [1, 3, 32])
def test_a_prompt_is_scored_whole(max_rows: int) -> None:
    tokens = tuple(int(t) for t in np.random.default_rng(5).integers(0, VOCABULARY, 150))
    request = Request(tokens=tokens, params=replace(WARM, max_tokens=1), logprobs=1, scored=True)
    generator = make(max_rows=max_rows)
    generator.run([replace(request, scored=False)])  # what it leaves must not be used
    result = generator.run([request])[0]
    assert len(result.prompt_logprobs) == len(tokens) - 1
    # As if each had been chosen: the same prompt, one token shorter, tells of the next.
    for place in (1, 64, 149):
        first = Request(
            tokens=tokens[:place], logprobs=1,
            params=SamplingParams(
                temperature=0, max_tokens=1, biased=(tokens[place],), biases=(1e4,)
            ),
        )  # fmt: skip
        told = None
        other = make()
        other.submit(0, first)
        while other.busy:
            told = (*other.step().logprobs, told)[0]
        assert told == result.prompt_logprobs[place - 1]


class Alternating:
    """A grammar: odd and even tokens in turns, at most eight."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def allowed(self) -> np.ndarray:
        mask = np.arange(VOCABULARY) % 2 == len(self.heard) % 2
        return mask if len(self.heard) < 8 else np.arange(VOCABULARY) == 10

    def accept(self, token: int) -> None:
        self.heard.append(token)


@pytest.mark.parametrize("speculate", [False, True])
def test_grammars_hold_and_show_no_company(speculate: bool) -> None:
    requests = [
        Request(tokens=(1, number), params=replace(WARM, seed=number), grammar="alternating",
                end_tokens=frozenset({10}))
        for number in range(4)
    ]  # fmt: skip
    generator = make(speculate)
    generator.set_grammars(lambda grammar: Alternating())
    together = generator.run([*requests, Request(tokens=(5,), params=WARM)])
    for request, result in zip(requests, together[:4], strict=True):
        assert all(token % 2 == place % 2 for place, token in enumerate(result.tokens[:8]))
        assert result.reason == "stop" and len(result.tokens) <= 9
        alone = make()
        alone.set_grammars(lambda grammar: Alternating())
        assert alone.run([request])[0].tokens == result.tokens
    assert make().run([Request(tokens=(5,), params=WARM)])[0].tokens == together[4].tokens


def test_without_a_vocabulary_there_are_no_grammars() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        make().submit(0, Request(tokens=(1,), params=WARM, grammar="x"))
