"""Generation: company, chunks, limits, cancellations and reuse never show in an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from bandweave import _native
from bandweave.executors.executor import StepError
from bandweave.executors.reference import math as reference_math
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.prefix_executor import PrefixExecutor
from tests.helpers.random_model import ODD_SPECS, random_source

SPEC = ODD_SPECS["ten_heads_of_8"]
GREEDY = SamplingParams(temperature=0.0, max_tokens=8)
WARM = SamplingParams(temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=5, max_tokens=8)


@dataclass(kw_only=True)
class Made:
    """A generator; ``fake`` is its executor where that is no model."""

    generator: Generator
    fake: PrefixExecutor | None = None


Make = Callable[..., Made]


@pytest.fixture(params=["fake", "native"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes generators with new caches: ``make(num_pages=, context=, max_rows=)``."""
    with ExitStack() as stack:

        def make(*, num_pages: int = 12, context: int = 192, max_rows: int = 256) -> Made:
            if request.param == "fake":
                fake = PrefixExecutor(num_pages=num_pages, vocab_size=SPEC.vocab_size)
                return Made(
                    fake=fake,
                    generator=Generator(
                        fake, fake.embed, num_pages=num_pages, context=context,
                        max_rows=max_rows, vocab_size=SPEC.vocab_size, exp=reference_math.exp,
                    ),
                )  # fmt: skip
            source = random_source(SPEC, 4)
            nodes = NativeNodes(SPEC, source, num_pages=num_pages, shares=(2, 1))
            stack.enter_context(nodes)
            return Made(
                generator=Generator(
                    nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=num_pages,
                    context=context, max_rows=max_rows, vocab_size=SPEC.vocab_size,
                    exp=lambda values: _native.exp(values).reshape(-1),
                ),
            )  # fmt: skip

        yield make


def asked(number: int, length: int, params: SamplingParams = GREEDY) -> Request:
    tokens = tuple((37 * i * i + 11 * number + 5) % SPEC.vocab_size for i in range(length))
    return Request(tokens=tokens, params=params)


REQUESTS = [asked(0, 70), asked(1, 5, WARM), asked(2, 1), asked(3, 62, WARM), asked(4, 64)]


def heart(result: Result) -> tuple[tuple[int, ...], str, str]:
    return result.tokens, result.reason, result.logits_digest


def alone(make: Make, request: Request) -> Result:
    return make().generator.run([request], digest=True)[0]


def test_a_batch_gives_each_answer_as_alone(make: Make) -> None:
    together = make().generator.run(REQUESTS, digest=True)
    for request, result in zip(REQUESTS, together, strict=True):
        assert heart(result) == heart(alone(make, request))
        assert result.reason == "length" and len(result.tokens) == 8
        assert result.timing.prompt_tokens == len(request.tokens)
        assert result.timing.decode_tokens == 7
    assert len({result.logits_digest for result in together}) == len(REQUESTS)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_do_not_show(make: Make, chunk: int) -> None:
    whole = make().generator.run(REQUESTS, digest=True)
    made = make()
    results = made.generator.run(REQUESTS, digest=True, chunk=chunk)
    assert [heart(result) for result in results] == [heart(result) for result in whole]
    if made.fake is not None:
        for step in made.fake.steps:
            decoding = int(sum(step.wants_logits))
            assert len(step.tokens) - decoding <= chunk


@pytest.mark.parametrize("max_rows", [1, 3, 40])
def test_the_rows_of_a_step_do_not_show(make: Make, max_rows: int) -> None:
    whole = make().generator.run(REQUESTS, digest=True)
    made = make(max_rows=max_rows)
    results = made.generator.run(REQUESTS, digest=True)
    assert [heart(result) for result in results] == [heart(result) for result in whole]
    if made.fake is not None:
        assert max(len(step.tokens) for step in made.fake.steps) <= max_rows


def test_without_a_digest_the_tokens_are_the_same(make: Make) -> None:
    with_digest = make().generator.run(REQUESTS, digest=True)
    made = make()
    results = made.generator.run(REQUESTS)
    assert [result.tokens for result in results] == [result.tokens for result in with_digest]
    assert {result.logits_digest for result in results} == {""}
    greedy = [request for request in REQUESTS if request.params == GREEDY]
    made = make()
    results = made.generator.run(greedy)
    assert [result.tokens for result in results] == [
        result.tokens
        for request, result in zip(REQUESTS, with_digest, strict=True)
        if request in greedy
    ]
    assert made.fake is None or made.fake.best_steps == len(made.fake.steps)


def test_tokens_are_told_in_order_as_they_come(make: Make) -> None:
    told: dict[int, list[int]] = {}
    results = make().generator.run(
        REQUESTS,
        on_tokens=lambda tokens: [told.setdefault(i, []).append(token) for i, token in tokens],
    )
    assert [tuple(told[i]) for i in range(len(REQUESTS))] == [result.tokens for result in results]


def test_the_context_limits_prompt_and_answer_together(make: Make) -> None:
    made = make(context=75)
    endless = replace(GREEDY, max_tokens=None)
    result = made.generator.run([asked(0, 70, endless)])[0]
    assert (len(result.tokens), result.reason) == (5, "length")
    assert made.generator.run([asked(0, 74)])[0].reason == "length"
    one = made.generator.run([asked(0, 70, replace(GREEDY, max_tokens=1))])[0]
    assert one.tokens == result.tokens[:1]


def test_an_end_token_ends_the_answer_and_is_part_of_it(make: Make) -> None:
    full = alone(make, REQUESTS[0])
    end = next(token for token in full.tokens[2:] if token not in full.tokens[:2])
    place = full.tokens.index(end)
    ended = replace(REQUESTS[0], end_tokens=frozenset({end, SPEC.vocab_size - 1} - set(
        full.tokens[:place])))  # fmt: skip
    for requests in ([ended], [REQUESTS[1], ended, REQUESTS[2]]):
        result = make().generator.run(requests, digest=True)[requests.index(ended)]
        assert (result.tokens, result.reason) == (full.tokens[: place + 1], "stop")


def test_a_cancelled_answer_ends_and_the_others_go_on(make: Make) -> None:
    expected = make().generator.run(REQUESTS, digest=True)
    count = [0] * len(REQUESTS)

    def on_tokens(tokens: Sequence[tuple[int, int]]) -> None:
        for index, _ in tokens:
            count[index] += 1

    def cancelled() -> frozenset[int]:
        return frozenset({0, 99}) if count[0] >= 3 else frozenset()

    results = make().generator.run(REQUESTS, on_tokens=on_tokens, cancelled=cancelled, digest=True)
    assert (results[0].tokens, results[0].reason) == (expected[0].tokens[:3], "cancelled")
    assert [heart(result) for result in results[1:]] == [heart(one) for one in expected[1:]]


def test_all_may_be_cancelled_before_anything_was_computed(make: Make) -> None:
    made = make()
    results = made.generator.run(
        REQUESTS, cancelled=lambda: frozenset(range(len(REQUESTS))), digest=True
    )
    nothing = hashlib.sha256().hexdigest()
    assert {heart(result) for result in results} == {((), "cancelled", nothing)}
    assert made.fake is None or made.fake.steps == []


def test_follow_ups_reuse_what_is_computed_and_give_the_answer_of_a_fresh_start(
    make: Make,
) -> None:
    made = make()
    first = made.generator.run([REQUESTS[0]], digest=True)[0]
    said = (*REQUESTS[0].tokens, *first.tokens)
    # A follow-up goes on, and so does the same again, in the page that the follow-up left; others
    # share full pages: a history edited early behind the page's end, and before it.
    follow_ups = [(*said, 3, 1, 4), said, (*said[:68], 9, 9), (*said[:20], 8, 8, 8)]
    reused = [len(said) - 1, len(said) - 1, 64, 0]
    for tokens, least in zip(follow_ups, reused, strict=True):
        request = Request(tokens=tokens, params=WARM)
        result = made.generator.run([request], digest=True)[0]
        assert result.timing.reused_tokens == least
        assert heart(result) == heart(alone(make, request))
        fresh = made.generator.run([request], digest=True, reuse=False)[0]
        assert fresh.timing.reused_tokens == 0
        assert heart(fresh) == heart(result)
        made.generator.run([replace(request, tokens=said)], reuse=False)


def test_equal_prompts_at_once_share_full_pages(make: Make) -> None:
    made = make()
    made.generator.run([REQUESTS[0]])
    results = made.generator.run([REQUESTS[0]] * 3, digest=True)
    assert {heart(result) for result in results} == {heart(alone(make, REQUESTS[0]))}
    assert [result.timing.reused_tokens for result in results] == [64, 64, 64]


def test_choices_and_seeds_tell_answers_to_one_prompt_apart(make: Make) -> None:
    hot = replace(WARM, temperature=3.0, top_p=1.0)
    request = asked(0, 9, hot)
    others = [replace(request, choice=1), replace(request, params=replace(hot, seed=6))]
    results = make().generator.run([request, *others, request])
    assert len({result.tokens for result in results}) == 3
    assert results[0].tokens == results[3].tokens


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((), r"^the prompt is empty; "),
        ((1,) * 192, r"^the prompt has 192 tokens, but the context holds 192, the answer "),
        ((1, SPEC.vocab_size), r"^token 301 is not in the vocabulary of 301 tokens$"),
        ((-1,), r"^token -1 is not in the vocabulary"),
    ],
)
def test_requests_that_cannot_be_run_are_refused_before_any_is(
    make: Make, tokens: tuple[int, ...], message: str
) -> None:
    made = make()
    with pytest.raises(ValueError, match=message):
        made.generator.run([REQUESTS[0], Request(tokens=tokens, params=GREEDY)])
    assert made.fake is None or made.fake.steps == []
    assert heart(made.generator.run([REQUESTS[0]], digest=True)[0]) == heart(
        alone(make, REQUESTS[0])
    )


def test_answers_wait_for_pages(make: Make) -> None:
    made = make(num_pages=3)
    together = made.generator.run([asked(0, 70), asked(1, 70)], digest=True)
    assert [heart(result) for result in together] == [
        heart(alone(make, asked(0, 70))),
        heart(alone(make, asked(1, 70))),
    ]
    for _ in range(2):
        result = made.generator.run([asked(5, 130)], digest=True)[0]
        assert heart(result) == heart(alone(make, asked(5, 130)))


def test_a_waiting_answer_can_be_cancelled_and_those_behind_it_go_on(make: Make) -> None:
    requests = [asked(0, 70), asked(1, 70), asked(2, 70), asked(3, 5)]
    told: list[int] = []
    results = make(num_pages=3).generator.run(
        requests,
        on_tokens=lambda tokens: told.extend(index for index, _ in tokens),
        cancelled=lambda: frozenset({1}) if len(told) == 2 else frozenset(),
        digest=True,
    )
    assert (results[1].tokens, results[1].reason) == ((), "cancelled")
    for i in (0, 2, 3):
        assert heart(results[i]) == heart(alone(make, requests[i]))
    assert told[:8] == [0] * 8  # whoever waits for pages is not overtaken
    assert 1 not in told


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunks_of_nothing_are_refused(make: Make, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"^prompt chunks of {chunk} tokens; "):
        make().generator.run([REQUESTS[0]], chunk=chunk)


def test_pages_that_do_not_hold_one_context_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="^2 KV pages of 64 tokens do not hold one context of 192"):
        make(num_pages=2).generator.run([REQUESTS[2]])


def test_a_failed_step_leaves_nothing_behind() -> None:
    fake = PrefixExecutor(num_pages=6, vocab_size=SPEC.vocab_size)
    fake.failing = {3}
    generator = Generator(
        fake, fake.embed, num_pages=6, context=192, max_rows=256, vocab_size=SPEC.vocab_size,
        exp=reference_math.exp,
    )  # fmt: skip
    requests = [REQUESTS[0], REQUESTS[1]]
    with pytest.raises(StepError, match="^node 1 closed"):
        generator.run(requests)
    results = generator.run(requests, digest=True)
    assert results[0].timing.reused_tokens == 69  # what was computed before stands
    fresh = generator.run(requests, digest=True, reuse=False)
    assert [heart(result) for result in results] == [heart(result) for result in fresh]
