"""Who is served when: keys share alike, steps stay short, prompts are read once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.executors.executor import PAGE_SIZE
from bandweave.executors.reference import math as reference_math
from bandweave.generation.fairness import Fairness
from bandweave.generation.generator import Generator
from bandweave.generation.pace import Pace
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from tests.helpers.prefix_executor import PrefixExecutor

VOCABULARY, CONTEXT = 7, 640
GREEDY = SamplingParams(temperature=0.0)


def make(num_pages: int, max_rows: int = 64) -> tuple[Generator, PrefixExecutor]:
    fake = PrefixExecutor(num_pages=num_pages, vocab_size=VOCABULARY)
    generator = Generator(
        fake, fake.embed, num_pages=num_pages, context=CONTEXT, max_rows=max_rows,
        vocab_size=VOCABULARY, exp=reference_math.exp,
    )  # fmt: skip
    return generator, fake


def asked(key: str, number: int, length: int = 40, limit: int = 30, weight: float = 1.0) -> Request:
    tokens = [(number + i * i) % VOCABULARY for i in range(length)]
    tokens[:3] = [number // 49 % 7, number // 7 % 7, number % 7]
    return Request(
        tokens=tuple(tokens), params=replace(GREEDY, max_tokens=limit), key=key, weight=weight
    )


def play(generator: Generator, steps: int = 10**6) -> tuple[list[list[int]], dict[int, Result]]:
    """Runs to the end, or so many steps: the requests with new tokens in each step, and results."""
    new: list[list[int]] = []
    results: dict[int, Result] = {}
    while generator.busy and len(new) < steps:
        events = generator.step()
        new.append([id for id, _ in events.tokens])
        results.update(events.finished)
    return new, results


def test_one_request_is_not_kept_waiting_by_fifty() -> None:
    generator, _ = make(num_pages=12)  # for a few of them at a time
    for number in range(50):
        generator.submit(number, asked("many", number))
    play(generator, 20)
    generator.submit(99, asked("one", 99))
    new, _ = play(generator, 6)
    assert any(99 in step for step in new[:3])


def test_no_answer_shows_who_gave_way() -> None:
    generator, _ = make(num_pages=10)
    requests = [asked("ab"[number % 2], number, limit=100) for number in range(12)]
    for number, request in enumerate(requests):
        generator.submit(number, request)
    _, results = play(generator)
    assert generator.state().preempted > 0
    for number, request in enumerate(requests):
        alone, _ = make(num_pages=10)
        assert alone.run([request])[0].tokens == results[number].tokens


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 2.0)])
def test_shares_are_by_weight(weights: tuple[float, float]) -> None:
    generator, _ = make(num_pages=14)
    for number in range(120):
        key = number % 2
        generator.submit(number, asked(str(key), number, weight=weights[key], limit=20))
    served = [0, 0]
    for _ in range(250):
        for id, _token in generator.step().tokens:
            served[id % 2] += 1
    assert served[0] / served[1] == pytest.approx(weights[0] / weights[1], rel=0.35)


def test_a_prompt_is_read_once_for_many() -> None:
    generator, fake = make(num_pages=40)
    prompt = asked("", 5, length=5 * PAGE_SIZE + 9)
    for choice in range(6):
        generator.submit(choice, replace(prompt, choice=choice))
    _, results = play(generator)
    read = sum(int((~step.wants_logits).sum()) for step in fake.steps)
    assert read < 5 * PAGE_SIZE + 9 + 6 * 2 * PAGE_SIZE
    assert len({result.tokens for result in results.values()}) == 1
    assert sum(result.timing.reused_tokens == 5 * PAGE_SIZE for result in results.values()) == 5


def test_nobody_waits_for_a_forerunner_that_was_cancelled() -> None:
    generator, _ = make(num_pages=40, max_rows=8)
    prompt = asked("", 5, length=5 * PAGE_SIZE)
    for number in range(3):
        generator.submit(number, prompt)
    play(generator, 3)
    generator.cancel(0)
    _, results = play(generator)
    assert results[0].reason == "cancelled" and results[1].tokens == results[2].tokens


def test_counters_grow_by_what_was_served() -> None:
    fairness = Fairness()
    fairness.enter("a")
    fairness.count("a", read=100, written=10)
    assert fairness.served("a") == 120
    fairness.enter("b")  # it was not here: it begins where the least served stands
    assert fairness.served("b") == 120
    fairness.count("b", read=10, weight=2.0)
    assert fairness.served("b") == 125
    fairness.leave("a")
    fairness.enter("c")
    assert fairness.served("c") == 125
    fairness.enter("a")
    assert fairness.served("a") == 125


def test_keys_that_left_are_forgotten_in_the_end() -> None:
    fairness = Fairness()
    for number in range(70_000):
        fairness.enter(str(number))
        fairness.leave(str(number))
    assert len(fairness._served) <= (1 << 16) + 1


def test_prompts_have_the_rows_that_their_time_allows() -> None:
    pace = Pace(0.25)
    assert pace.rows(decoding=0, most=256) == 256  # nobody listens
    assert pace.rows(decoding=4, most=256) == 16  # nothing is known
    for _ in range(20):
        pace.observe(decoding=4, reading=0, seconds=0.05)
        pace.observe(decoding=4, reading=50, seconds=0.05 + 50 * 0.004)
    assert 47 <= pace.rows(decoding=4, most=256) <= 50
    assert pace.rows(decoding=4, most=20) == 20
    for _ in range(20):
        pace.observe(decoding=4, reading=0, seconds=1.0)
    assert pace.rows(decoding=4, most=256) == 8  # prompts get on even so


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 200), st.floats(0, 5))))
def test_prompts_always_get_on(steps: list[tuple[int, int, float]]) -> None:
    pace = Pace()
    for decoding, reading, seconds in steps:
        pace.observe(decoding=decoding, reading=reading, seconds=seconds)
        assert 1 <= pace.rows(decoding=decoding, most=64) <= 64


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.integers(1, 200),
                  st.integers(1, 60)),
        min_size=1, max_size=14,
    )
)  # fmt: skip
def test_everybody_is_served_in_the_end(requests: list[tuple[str, int, int, int]]) -> None:
    generator, fake = make(num_pages=10, max_rows=24)
    for number, (key, seed, length, limit) in enumerate(requests):
        generator.submit(number, asked(key, seed, length=max(4, length), limit=limit))
    _, results = play(generator, 20_000)
    assert len(results) == len(requests)
    assert all(result.reason in ("stop", "length") for result in results.values())
    assert np.isfinite(len(fake.steps))
