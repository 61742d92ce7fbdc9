"""Answers that begin with what was said elsewhere go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bandweave.executors.reference import math as reference_math
from bandweave.generation.generator import Events, Generator
from bandweave.generation.grammar import Mask
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from tests.helpers.prefix_executor import PrefixExecutor

VOCABULARY = 23
WARM = SamplingParams(temperature=0.9, seed=6, max_tokens=40)
PENALISED = replace(
    WARM, repetition_penalty=1.4, frequency_penalty=0.3, presence_penalty=0.2, top_k=9
)
LONG = tuple(range(20)) * 6
CASES = {
    "greedy": Request(tokens=(1, 2, 3), params=replace(WARM, temperature=0.0)),
    "sampled": Request(tokens=(4, 5), params=WARM, choice=2),
    "penalised": Request(tokens=LONG, params=PENALISED),
    "logprobs": Request(tokens=(7, 8, 9), params=WARM, logprobs=3),
    "scored": Request(tokens=LONG[:50], params=WARM, logprobs=2, scored=True),
    "to its end": Request(tokens=(3, 1), params=replace(WARM, seed=9), end_tokens=frozenset({11})),
    "grammar": Request(tokens=(2, 2), params=WARM, grammar="odd, even"),
}


class Turns:
    """Odd and even tokens in turn."""

    def __init__(self) -> None:
        self._odd = False

    def allowed(self) -> Mask:
        return np.arange(VOCABULARY) % 2 == int(self._odd)

    def accept(self, token: int) -> None:
        assert token % 2 == int(self._odd)
        self._odd = not self._odd


def make(*, speculate: bool = False, max_rows: int = 16, num_pages: int = 12) -> Generator:
    fake = PrefixExecutor(num_pages=num_pages, vocab_size=VOCABULARY)
    return Generator(
        fake, fake.embed, num_pages=num_pages, context=320, max_rows=max_rows,
        vocab_size=VOCABULARY, exp=reference_math.exp, make_matcher=lambda grammar: Turns(),
        speculation=Speculation(NgramDrafter(), adaptive=False) if speculate else None,
    )  # fmt: skip


def run(
    generator: Generator, requests: Sequence[Request], *, digest: bool = False
) -> tuple[list[Result], list[list[int]], list[list[TokenLogprobs | None]]]:
    """Results, and the tokens and log-probabilities that were told, by request."""
    for id, request in enumerate(requests):
        generator.submit(id, request, CallOptions(digest=digest))
    return finish(generator, len(requests))


def finish(
    generator: Generator, count: int
) -> tuple[list[Result], list[list[int]], list[list[TokenLogprobs | None]]]:
    results: dict[int, Result] = {}
    told: list[list[int]] = [[] for _ in range(count)]
    logprobs: list[list[TokenLogprobs | None]] = [[] for _ in range(count)]
    while generator.busy:
        events: Events = generator.step()
        for place, (id, token) in enumerate(events.tokens):
            told[id].append(token)
            logprobs[id].append(events.logprobs[place] if events.logprobs else None)
        results.update(events.finished)
    return [results[id] for id in range(count)], told, logprobs


def heart(result: Result) -> tuple[object, ...]:
    return result.tokens, result.reason, result.logits_digest, result.digests, result.error


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_an_answer_goes_on_from_any_token(case: str, digest: bool, speculate: bool) -> None:
    request = CASES[case]
    (whole,), (tokens,), (logprobs,) = run(make(speculate=speculate), [request], digest=digest)
    assert len(tokens) == len(whole.tokens) > 1
    for count in range(1, len(tokens) + 1):
        rest = replace(request, said=tuple(tokens[:count]))
        (result,), (told,), (own,) = run(make(speculate=speculate), [rest], digest=digest)
        assert heart(result) == heart(whole), count
        assert told == tokens[count:] and own == logprobs[count:]
        assert result.prompt_logprobs == whole.prompt_logprobs
        if case == "scored":
            assert len(result.prompt_logprobs) == len(request.tokens) - 1


@pytest.mark.parametrize("digest", [False, True])
def test_many_go_on_together_where_pages_are_few(digest: bool) -> None:
    """Some wait, some give way in the midst of what they read again."""
    longer = [replace(CASES["sampled"], tokens=LONG[place : 45 + place]) for place in range(6)]
    requests = [*longer, *CASES.values(), *(replace(one, choice=5) for one in CASES.values())]
    whole, tokens, _ = run(make(num_pages=40), requests, digest=digest)
    rest = [
        replace(one, said=tuple(said[: (7 * place) % (len(said) + 1)]))
        for place, (one, said) in enumerate(zip(requests, tokens, strict=True))
    ]
    generator = make(num_pages=5, max_rows=24)
    results, told, _ = run(generator, rest, digest=digest)
    assert list(map(heart, results)) == list(map(heart, whole))
    for one, new, all_tokens in zip(rest, told, tokens, strict=True):
        assert new == all_tokens[len(one.said) :]
    assert generator.state().preempted > 0


def test_what_was_said_in_full_ends_at_once() -> None:
    request = replace(CASES["greedy"], params=replace(WARM, temperature=0.0, max_tokens=5))
    (whole,), _, _ = run(make(), [request])
    generator = make()
    (result,), (told,), _ = run(generator, [replace(request, said=whole.tokens)])
    assert (result.tokens, result.reason, told) == (whole.tokens, "length", [])
    assert generator.state().counts.steps == 0
    assert result.timing.prompt_tokens == 3


def test_what_makes_no_sense_is_refused() -> None:
    generator, request = make(), CASES["greedy"]
    for said in ((VOCABULARY,), (1,) * 41, (-1,)):
        with pytest.raises(ValueError, match="said|token"):
            generator.submit(1, replace(request, said=said))
    assert not generator.busy


def test_an_answer_that_is_cancelled_has_the_digest_of_what_was_said() -> None:
    request = CASES["sampled"]
    (whole,), _, _ = run(make(), [request], digest=True)
    generator = make()
    generator.submit(0, replace(request, said=whole.tokens[:9]), CallOptions(digest=True))
    generator.cancel(0)
    results, told, _ = finish(generator, 1)
    assert results[0].reason == "cancelled" and told == [[]]
    assert results[0].digests == whole.digests[:9]
