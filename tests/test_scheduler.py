"""The scheduler under random arrivals, cancellations and shortage: no sequence's tokens show it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.executors.executor import StepError
from bandweave.executors.reference import math as reference_math
from bandweave.generation.generator import Generator
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.scheduler import Scheduler
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from tests.helpers.delayed_pipeline import DelayedPipeline
from tests.helpers.prefix_executor import PrefixExecutor

VOCABULARY, CONTEXT = 5, 320
GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, repetition_penalty=1.3, seed=3)


def make(
    num_pages: int,
    max_rows: int,
    speculate: bool = False,
    num_states: int = 0,
    groups: int = 1,
) -> Generator:
    fake = PrefixExecutor(num_pages=num_pages, vocab_size=VOCABULARY, num_states=num_states)
    return Generator(
        fake, fake.embed, num_pages=num_pages, context=CONTEXT, max_rows=max_rows,
        vocab_size=VOCABULARY, num_states=num_states, exp=reference_math.exp,
        speculation=Speculation(NgramDrafter(), adaptive=False) if speculate else None,
        pipeline=DelayedPipeline(fake, groups) if groups > 1 else None,
    )  # fmt: skip


def asked(kind: int, length: int, limit: int, warm: bool = False) -> Request:
    """Prompts of one kind begin alike for a while, as conversations with one system prompt do."""
    alike = min(length, 100)
    tokens = [kind] * alike + [(kind + i * i + length) % VOCABULARY for i in range(length - alike)]
    return Request(tokens=tuple(tokens), params=replace(WARM if warm else GREEDY, max_tokens=limit))


@cache
def alone(request: Request) -> Result:
    return make(num_pages=8, max_rows=64).run([request], digest=True)[0]


REQUESTS = st.builds(
    asked, st.integers(0, 2), st.integers(1, 230), st.integers(1, 90), st.booleans()
)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[Request, int, int | None, int | None, bool]]:
    """Requests, each with the step before which it comes, the number of its own tokens at which it
    is cancelled, its chunk, and whether it may use what others computed."""
    return draw(
        st.lists(
            st.tuples(
                REQUESTS,
                st.integers(0, 40),
                st.none() | st.integers(0, 30),
                st.none() | st.integers(1, 70),
                st.booleans(),
            ),
            min_size=1,
            max_size=8,
        )
    )


class Play:
    """Requests that come and go over the steps of one generator."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.tokens: dict[int, list[int]] = {}
        self.results: dict[int, Result] = {}
        self.first: list[int] = []  # requests, by their first tokens
        self.steps = 0

    def step(self) -> None:
        events = self.generator.step()
        self.steps += 1
        for id, token in events.tokens:
            assert id not in self.results, "a token after the end"
            if not self.tokens[id]:
                self.first.append(id)
            self.tokens[id].append(token)
        for id, result in events.finished:
            assert id not in self.results, "ended twice"
            self.results[id] = result


@settings(max_examples=80)
@given(
    stories(), st.integers(5, 12), st.sampled_from([1, 3, 8, 64]), st.booleans(),
    st.sampled_from([0, 0, 1, 2, 5, 9]), st.sampled_from([1, 1, 2, 3]),
)  # fmt: skip
def test_every_sequences_tokens_are_those_it_has_alone(
    story: list[tuple[Request, int, int | None, int | None, bool]],
    num_pages: int,
    max_rows: int,
    speculate: bool,
    num_states: int,
    groups: int,
) -> None:
    play = Play(make(num_pages, max_rows, speculate, num_states, groups))
    generator = play.generator
    coming = sorted(enumerate(story), key=lambda one: (one[1][1], one[0]))
    most = 100 + groups * sum(4 * (len(one[0].tokens) + 90) for one in story)
    while coming or generator.busy:
        while coming and (coming[0][1][1] <= play.steps or not generator.busy):
            id, (request, _, _, chunk, reuse) = coming.pop(0)
            options = CallOptions(chunk=chunk, digest=True, reuse=reuse)
            generator.submit(id, request, options)
            play.tokens[id] = []
        for id, tokens in play.tokens.items():
            limit = story[id][2]
            if limit is not None and len(tokens) >= limit:
                generator.cancel(id)
        play.step()
        running = generator._scheduler.running
        held = {page for one in running for page in one.cached.pages}
        assert len(held) + generator._scheduler.pool.available == num_pages, "a page is lost"
        states = generator._scheduler.pool._states
        if states is not None:
            own = {one.cached.state for one in running}
            read = {one.cached.source for one in running} - {-1}
            keeping = sum(one.cached.keeping is not None for one in running)
            assert len(own) == len(running) and not own & read
            assert len(own) + len(read) + keeping + states.available == num_states, (
                "a state is lost"
            )
        assert play.steps < most, "nothing gets on"
    for id, (request, _, limit, _, _) in enumerate(story):
        result, expected = play.results[id], alone(request)
        count = len(result.tokens)
        assert list(result.tokens) == play.tokens[id]
        assert result.tokens == expected.tokens[:count]
        assert result.digests == expected.digests[:count]
        if result.reason == "cancelled":
            assert limit is not None and count >= limit
        else:
            assert (result.reason, count) == (expected.reason, len(expected.tokens))
    pool = generator._scheduler.pool
    assert pool.available == num_pages and not any(pool._users)


@settings(max_examples=30)
@given(st.lists(REQUESTS, min_size=2, max_size=10), st.integers(5, 9), st.sampled_from([1, 4, 64]))
def test_whoever_came_first_is_served_first(
    requests: list[Request], num_pages: int, max_rows: int
) -> None:
    """The first never waits for those behind it: it takes no more steps than alone, but for those
    in which others have rows that it cannot have."""
    play = Play(make(num_pages, max_rows))
    for id, request in enumerate(requests):
        request = replace(request, params=replace(request.params, max_tokens=20))
        requests[id] = request
        play.generator.submit(id, request)
        play.tokens[id] = []
    scheduler = play.generator._scheduler
    while play.generator.busy:
        before = [one.id for one in scheduler.running]
        play.step()
        if before and before[0] not in play.results:
            assert scheduler.running[0].id <= before[0], "the oldest gave way"
    assert sorted(play.results) == list(range(len(requests)))


def test_pages_run_out_and_the_youngest_is_computed_again() -> None:
    requests = [asked(kind, 60, 200) for kind in range(3)]
    generator = make(num_pages=7, max_rows=64)
    pool = generator._scheduler.pool
    sequences = [
        generator._scheduler.submit(id, request, CallOptions(digest=True))
        for id, request in enumerate(requests)
    ]
    results: dict[int, Result] = {}
    while generator.busy:
        results.update(generator.step().finished)
        held = {page for one in generator._scheduler.running for page in one.cached.pages}
        assert len(held) + pool.available == 7, "a page is lost"
    assert [one.preempted for one in sequences][0] == 0
    assert sum(one.preempted for one in sequences) > 0
    for id, request in enumerate(requests):
        assert results[id].tokens == alone(request).tokens
        assert results[id].logits_digest == alone(request).logits_digest


def test_more_streams_than_rows_take_turns() -> None:
    play = Play(make(num_pages=12, max_rows=3))
    for id in range(6):
        play.generator.submit(id, asked(id % 3, 4 + id, 60))
        play.tokens[id] = []
    while not all(play.tokens.values()):
        play.step()
    before = [len(tokens) for tokens in play.tokens.values()]
    for _ in range(20):
        play.step()
    gained = [len(play.tokens[id]) - before[id] for id in range(6)]
    assert gained == [10] * 6
    while play.generator.busy:
        play.step()
    assert {len(result.tokens) for result in play.results.values()} == {60}


def test_a_short_prompt_is_read_beside_streams_that_fill_all_rows() -> None:
    play = Play(make(num_pages=12, max_rows=4))
    for id in range(4):
        play.generator.submit(id, asked(id % 3, 4, 80))
        play.tokens[id] = []
    for _ in range(10):
        play.step()
    play.generator.submit(9, asked(1, 20, 5))
    play.tokens[9] = []
    for _ in range(30):
        play.step()
    assert play.tokens[9] and not play.results.keys() & set(range(4))


def test_conversations_with_one_system_prompt_keep_their_histories() -> None:
    generator = make(num_pages=12, max_rows=64)
    histories = [[1] * 130 + [kind] * 40 for kind in (2, 3)]
    for turn in range(3):
        for history in histories:
            request = Request(tokens=tuple(history), params=replace(GREEDY, max_tokens=8))
            result = generator.run([request])[0]
            fresh = make(8, 64).run([request])[0]
            assert result.tokens == fresh.tokens
            if turn:
                assert result.timing.reused_tokens >= len(history) - 4
            history += [*result.tokens, 4, 4, 4]


def test_names_are_those_of_one_request_at_a_time() -> None:
    generator = make(num_pages=8, max_rows=64)
    generator.submit(7, asked(0, 5, 3))
    with pytest.raises(ValueError, match="^there is a request 7 already$"):
        generator.submit(7, asked(0, 5, 3))
    while generator.busy:
        generator.step()
    generator.submit(7, asked(0, 5, 3))
    generator.cancel(8)
    generator.cancel(7)
    (finished,) = generator.step().finished
    assert finished[0] == 7 and finished[1].reason == "cancelled"
    assert not generator.busy


def test_a_request_that_cannot_be_run_changes_nothing() -> None:
    scheduler = Scheduler(num_pages=8, context=CONTEXT, max_rows=4, vocab_size=VOCABULARY)
    for request in (asked(0, 0, 3), asked(0, 400, 1)):
        with pytest.raises(ValueError):
            scheduler.submit(1, request)
    with pytest.raises(ValueError):
        scheduler.submit(1, asked(0, 5, 3), CallOptions(chunk=0))
    assert not scheduler.busy and scheduler.schedule() == []


def test_steps_under_way_have_even_parts_of_all_that_run() -> None:
    for groups, streams, parts in (
        (2, 8, [4, 4]),
        (2, 5, [2, 3]),
        (3, 7, [1, 3, 3]),
        (3, 2, [1, 1]),
    ):
        generator = make(24, 64, groups=groups)
        for id in range(streams):
            generator.submit(id, asked(id % 3, 4, 60))
        for _ in range(12):
            generator.step()
        assert generator.state().in_flight == len(parts)
        generator._start_steps()
        assert sorted(len(one.batch) for one in generator._flights) == parts
        told = 0
        for _ in parts:
            told += len(generator.step().tokens)
        assert told == streams
        generator.abandon()
        assert not generator.busy and generator.state().in_flight == 0


def test_a_prompt_is_read_beside_all_groups() -> None:
    play = Play(make(12, 8, groups=2))
    for id in range(4):
        play.generator.submit(id, asked(id % 3, 4, 80))
        play.tokens[id] = []
    for _ in range(10):
        play.step()
    play.generator.submit(9, asked(1, 200, 5))
    play.tokens[9] = []
    while not play.tokens[9]:
        play.step()
    assert not play.results and min(map(len, play.tokens.values())) < 80
    before = [len(play.tokens[id]) for id in range(4)]
    for _ in range(20):
        play.step()
    assert all(len(play.tokens[id]) >= before[id] + 8 for id in range(4))


def test_what_is_cancelled_under_way_ends_behind_its_step() -> None:
    play = Play(make(12, 64, groups=2))
    for id in range(4):
        play.generator.submit(id, asked(id % 3, 4 + id, 60), CallOptions(digest=True))
        play.tokens[id] = []
    for _ in range(9):
        play.step()
    under_way = [one.id for one in play.generator._scheduler.running if one.under_way]
    assert under_way
    for id in range(4):
        play.generator.cancel(id)
    while play.generator.busy:
        play.step()
    for id in range(4):
        result, count = play.results[id], len(play.tokens[id])
        expected = alone(asked(id % 3, 4 + id, 60))
        assert result.reason == "cancelled" and 0 < count < 60
        assert list(result.tokens) == play.tokens[id] == list(expected.tokens[:count])
        assert result.logits_digest == expected.digests[count - 1]
    pool = play.generator._scheduler.pool
    assert pool.available == 12 and not any(pool._users)


@pytest.mark.parametrize("num_states", [0, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_that_fails_leaves_all_as_before_it(groups: int, num_states: int) -> None:
    fake = PrefixExecutor(num_pages=8, vocab_size=VOCABULARY, num_states=num_states)
    fake.failing = {2, 3, 9}
    generator = Generator(
        fake, fake.embed, num_pages=8, context=CONTEXT, max_rows=64, vocab_size=VOCABULARY,
        exp=reference_math.exp, num_states=num_states, pipeline=DelayedPipeline(fake, groups),
    )  # fmt: skip
    requests = [asked(0, 70, 10), asked(1, 5, 12)]
    for id, request in enumerate(requests):
        generator.submit(id, request, CallOptions(digest=True))
    results: dict[int, Result] = {}
    failures = 0
    while generator.busy:
        try:
            results.update(generator.step().finished)
        except StepError:
            failures += 1
    assert failures == 3
    for id, request in enumerate(requests):
        assert results[id].logits_digest == alone(request).logits_digest
