"""Speculation never shows in an answer, whoever drafts, however wrong; it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from bandweave import _native
from bandweave.executors.reference import math as reference_math
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.drafter import Drafter
from bandweave.generation.speculation.model_drafter import ModelDrafter
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.prefix_executor import PrefixExecutor
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.scripted_drafter import ScriptedDrafter

SPEC = ODD_SPECS["ten_heads_of_8"]
NUM_PAGES, CONTEXT = 14, 192
GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
WARM = SamplingParams(
    temperature=1.0, top_p=0.9, repetition_penalty=1.3, frequency_penalty=0.3,
    presence_penalty=0.2, seed=5, max_tokens=20,
)  # fmt: skip
STRICT = replace(GREEDY, repetition_penalty=1.5, max_tokens=17)


def asked(number: int, length: int, params: SamplingParams = GREEDY) -> Request:
    tokens = tuple((37 * i * i + 11 * number + 5) % SPEC.vocab_size for i in range(length))
    return Request(tokens=tokens, params=params)


# Some pass a page's end while decoding, one at its first drafted token.
REQUESTS = [asked(0, 60), asked(1, 5, WARM), asked(2, 1), asked(3, 64, WARM), asked(4, 50, STRICT)]
GREEDY_ONES = [request for request in REQUESTS if request.params == GREEDY]

Make = Callable[..., Generator]


@pytest.fixture(params=["fake", "native"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes generators with new caches; ``drafter`` None decodes plainly."""
    with ExitStack() as stack:

        def make(
            drafter: Drafter | None = None, *, max_rows: int = 256, most: int = 5,
            fake: PrefixExecutor | None = None, context: int = CONTEXT,
        ) -> Generator:  # fmt: skip
            speculation = None
            if drafter is not None:
                speculation = Speculation(drafter, draft_tokens=most, adaptive=False)
            if request.param == "fake":
                executor = fake or PrefixExecutor(num_pages=NUM_PAGES, vocab_size=SPEC.vocab_size)
                return Generator(
                    executor, executor.embed, num_pages=NUM_PAGES, context=context,
                    max_rows=max_rows, vocab_size=SPEC.vocab_size, exp=reference_math.exp,
                    speculation=speculation,
                )  # fmt: skip
            nodes = NativeNodes(SPEC, random_source(SPEC, 4), num_pages=NUM_PAGES, shares=(2, 1))
            stack.enter_context(nodes)
            return Generator(
                nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
                context=context, max_rows=max_rows, vocab_size=SPEC.vocab_size,
                exp=lambda values: _native.exp(values).reshape(-1), speculation=speculation,
            )  # fmt: skip

        yield make


def hearts(results: Sequence[Result]) -> list[tuple[object, ...]]:
    return [(one.tokens, one.reason, one.logits_digest, one.digests) for one in results]


def scripted(results: Sequence[Result], lies: int = 4) -> ScriptedDrafter:
    answers = {i: result.tokens for i, result in enumerate(results)}
    return ScriptedDrafter(answers, vocab_size=SPEC.vocab_size, lies=lies)


@pytest.mark.parametrize("lies", [0, 1, 2, 3, 4, 7])
def test_drafts_do_not_show(make: Make, lies: int) -> None:
    plain = make().run(REQUESTS, digest=True)
    results = make(scripted(plain, lies)).run(REQUESTS, digest=True)
    assert hearts(results) == hearts(plain)
    for before, one in zip(plain, results, strict=True):
        timing = one.timing
        assert (timing.drafted_tokens > 0, before.timing.drafted_tokens) == (True, 0)
        assert timing.decode_steps == timing.decode_tokens - timing.accepted_tokens
        if lies == 0:
            assert timing.accepted_tokens == timing.drafted_tokens
            assert timing.decode_steps <= 4
        if lies == 1:
            assert timing.accepted_tokens == 0


@pytest.mark.parametrize("max_rows", [1, 4, 6, 9, 64])
def test_steps_have_room_for_some_drafts_only(make: Make, max_rows: int) -> None:
    plain = make().run(REQUESTS, digest=True)
    fake = PrefixExecutor(num_pages=NUM_PAGES, vocab_size=SPEC.vocab_size)
    results = make(scripted(plain), max_rows=max_rows, fake=fake).run(REQUESTS, digest=True)
    assert hearts(results) == hearts(plain)
    assert all(len(step.tokens) <= max_rows for step in fake.steps)


def test_candidates_are_enough_for_greedy_drafts(make: Make) -> None:
    plain = make().run(GREEDY_ONES)
    fake = PrefixExecutor(num_pages=NUM_PAGES, vocab_size=SPEC.vocab_size)
    results = make(scripted(plain), fake=fake).run(GREEDY_ONES)
    assert hearts(results) == hearts(plain)
    assert fake.best_steps == len(fake.steps)


@pytest.mark.parametrize("place", [0, 1, 4, 5, 6])
def test_an_end_token_among_the_drafts_ends_the_answer(make: Make, place: int) -> None:
    plain = make().run([REQUESTS[1]], digest=True)[0]
    ended = replace(REQUESTS[1], end_tokens=frozenset({plain.tokens[place]}))
    expected = make().run([ended], digest=True)
    results = make(scripted([plain], lies=0)).run([ended], digest=True)
    assert hearts(results) == hearts(expected)
    assert results[0].reason == "stop" and len(results[0].tokens) <= place + 1


@pytest.mark.parametrize("limit", range(1, 9))
def test_limits_are_kept_and_nothing_is_drafted_beyond_them(make: Make, limit: int) -> None:
    plain = make().run([REQUESTS[0]], digest=True)
    short = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=limit))
    drafter = scripted(plain, lies=0)
    result = make(drafter).run([short], digest=True)[0]
    assert (result.tokens, result.reason) == (plain[0].tokens[:limit], "length")
    assert result.logits_digest == plain[0].digests[limit - 1]
    assert result.timing.drafted_tokens <= max(0, limit - 2)


def test_the_context_ends_answers_all_the_same(make: Make) -> None:
    endless = replace(asked(0, 120), params=replace(GREEDY, max_tokens=None))
    plain = make(context=128).run([endless], digest=True)
    results = make(scripted(plain, lies=3), context=128).run([endless], digest=True)
    assert hearts(results) == hearts(plain)
    assert len(results[0].tokens) == 8


def test_tokens_are_told_one_by_one_and_cancellations_are_heard_between_steps(make: Make) -> None:
    plain = make().run(REQUESTS, digest=True)
    told: dict[int, list[int]] = {i: [] for i in range(len(REQUESTS))}
    results = make(scripted(plain, lies=3)).run(
        REQUESTS,
        on_tokens=lambda tokens: [told[index].append(token) for index, token in tokens],
        cancelled=lambda: frozenset({0}) if len(told[0]) >= 3 else frozenset(),
        digest=True,
    )
    assert hearts(results[1:]) == hearts(plain[1:])
    assert [tuple(tokens) for tokens in told.values()] == [one.tokens for one in results]
    count = len(told[0])
    assert 3 <= count < 3 + 6 and results[0].reason == "cancelled"
    assert results[0].tokens == plain[0].tokens[:count]
    assert results[0].logits_digest == plain[0].digests[count - 1]


def test_follow_ups_reuse_only_what_was_right(make: Make) -> None:
    plain = make().run([REQUESTS[0]], digest=True)
    drafter = scripted(plain, lies=2)
    generator = make(drafter)
    first = generator.run([REQUESTS[0]], digest=True)[0]
    said = (*REQUESTS[0].tokens, *first.tokens)
    follow_up = Request(tokens=(*said, 3, 1, 4), params=WARM)
    drafter.answers = {}
    result = generator.run([follow_up], digest=True)[0]
    assert result.timing.reused_tokens == len(said) - 1
    assert hearts([result]) == hearts(make().run([follow_up], digest=True))


def test_pages_of_wrong_drafts_are_free_again(make: Make) -> None:
    # 64 tokens are known when the drafts that need a second page are all wrong.
    request = asked(0, 63, replace(GREEDY, max_tokens=3))
    generator = make(ScriptedDrafter({0: [-1] * 9}, vocab_size=SPEC.vocab_size, lies=0))
    for _ in range(3 * NUM_PAGES):
        generator.run([request], reuse=False)
    many = [asked(i, 120) for i in range(NUM_PAGES // 3)]
    assert [len(one.tokens) for one in generator.run(many)] == [20] * len(many)


def test_time_is_accounted_for_without_a_gap(make: Make) -> None:
    plain = make().run(REQUESTS)
    for drafter in (None, scripted(plain)):
        for one in make(drafter).run(REQUESTS, chunk=16):
            timing = one.timing
            items = timing.computing + timing.sampling + timing.drafting + timing.between
            assert items == pytest.approx(timing.decode, rel=1e-6)
            assert min(timing.computing, timing.sampling, timing.between) >= 0
            assert (timing.drafting > 0) == (drafter is not None)


@pytest.mark.parametrize("stages", [1, 2])
def test_every_nodes_items_add_up_to_its_own_wall_time(stages: int) -> None:
    items = ("weights", "attention", "exchange_wait", "wire", "other")
    shares = (2, 1, 1)
    with NativeNodes(
        SPEC, random_source(SPEC, 4), num_pages=NUM_PAGES, shares=shares, stages=stages
    ) as nodes:
        generator = Generator(
            nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
            context=CONTEXT, max_rows=256, vocab_size=SPEC.vocab_size,
            exp=lambda values: _native.exp(values).reshape(-1),
        )  # fmt: skip
        # A prompt of one token is a prompt all the same.
        results = generator.run([asked(1, 1), asked(0, 30)])
        steps = max(one.timing.decode_steps for one in results)
    for node in nodes.nodes:
        for decode in (True, False):
            bill = node.bill(decode=decode)
            assert sum(bill[item] for item in items) == pytest.approx(bill["wall"], rel=0.02)
            assert bill["steps"] == (steps if decode else 1)


@pytest.mark.parametrize("adaptive", [True, False])
def test_repeated_text_is_drafted_from_the_prompt(adaptive: bool) -> None:
    fake = PrefixExecutor(num_pages=NUM_PAGES, vocab_size=3)  # loops and repeats soon
    generators = [
        Generator(
            fake, fake.embed, num_pages=NUM_PAGES, context=CONTEXT, max_rows=256, vocab_size=3,
            exp=reference_math.exp, speculation=speculation,
        )
        for speculation in (None, Speculation(NgramDrafter(), adaptive=adaptive))
    ]  # fmt: skip
    requests = [
        Request(tokens=(0, 1, 2, 0), params=replace(GREEDY, max_tokens=80)),
        Request(tokens=(2, 2), params=replace(WARM, max_tokens=60)),
    ]
    plain, results = (generator.run(requests, digest=True) for generator in generators)
    assert hearts(plain) == hearts(results)
    assert sum(one.timing.drafted_tokens for one in results) > 0


# --- draft models ---


def native(stack: ExitStack, seed: int, num_pages: int = NUM_PAGES) -> NativeNodes:
    return stack.enter_context(NativeNodes(SPEC, random_source(SPEC, seed), num_pages=num_pages))


def draft_model(nodes: NativeNodes, *, max_rows: int = 32, context: int = CONTEXT) -> ModelDrafter:
    return ModelDrafter(
        nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
        context=context, max_rows=max_rows, exp=lambda values: _native.exp(values).reshape(-1),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [4, 5])
@pytest.mark.parametrize("max_rows", [7, 256])
def test_a_draft_model_does_not_show(make: Make, seed: int, max_rows: int) -> None:
    plain = make().run(REQUESTS, digest=True)
    with ExitStack() as stack:
        drafter = draft_model(native(stack, seed), max_rows=max_rows)
        generator = make(drafter)
        results = generator.run(REQUESTS, digest=True)
        assert hearts(results) == hearts(plain)
        again = generator.run(REQUESTS[:2], digest=True, reuse=False)
        assert hearts(again) == hearts(plain[:2])


def test_a_model_that_drafts_for_itself_is_always_right() -> None:
    with ExitStack() as stack:
        nodes, own = native(stack, 4), draft_model(native(stack, 4))

        def generator(drafter: Drafter | None) -> Generator:
            return Generator(
                nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
                context=CONTEXT, max_rows=256, vocab_size=SPEC.vocab_size,
                exp=lambda values: _native.exp(values).reshape(-1),
                speculation=None
                if drafter is None
                else Speculation(drafter, draft_tokens=5, adaptive=False),
            )  # fmt: skip

        plain = generator(None).run(REQUESTS, digest=True, reuse=False)
        results = generator(own).run(REQUESTS, digest=True, reuse=False)
        assert hearts(results) == hearts(plain)
        for one in results:  # sampled ones too: both models draw with the position's randomness
            assert one.timing.accepted_tokens == one.timing.drafted_tokens > 0


def test_a_draft_model_of_a_short_context_stops_drafting() -> None:
    with ExitStack() as stack:
        nodes, drafter = native(stack, 4), draft_model(native(stack, 4), context=70)
        generator = Generator(
            nodes.nodes[0], lambda tokens: nodes.embeddings[tokens], num_pages=NUM_PAGES,
            context=CONTEXT, max_rows=256, vocab_size=SPEC.vocab_size,
            exp=lambda values: _native.exp(values).reshape(-1),
            speculation=Speculation(drafter, draft_tokens=5, adaptive=False),
        )  # fmt: skip
        results = generator.run([REQUESTS[0], REQUESTS[2]], digest=True)
        assert 0 < results[0].timing.drafted_tokens < 10 < results[1].timing.drafted_tokens
        assert len(results[0].tokens) == len(results[1].tokens) == 20


def test_a_draft_model_that_fails_is_given_up_and_the_answer_goes_on(make: Make) -> None:
    plain = make().run(REQUESTS, digest=True)
    broken = PrefixExecutor(num_pages=NUM_PAGES, vocab_size=SPEC.vocab_size)
    broken.failing = set(range(3, 1000))
    drafter = ModelDrafter(
        broken, broken.embed, num_pages=NUM_PAGES, context=CONTEXT, max_rows=256,
        exp=reference_math.exp,
    )  # fmt: skip
    assert hearts(make(drafter).run(REQUESTS, digest=True)) == hearts(plain)
    assert len(broken.steps) == 4
