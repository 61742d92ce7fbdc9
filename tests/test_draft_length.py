"""Drafting by n-grams, and how many tokens are drafted: pure decisions, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.sequence import Sequence as Answer
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.draft_length import (
    Acceptance,
    Costs,
    Observations,
    Odds,
    plan_lengths,
)
from bandweave.generation.speculation.ngram_drafter import LONGEST, SHORTEST, History, NgramDrafter
from tests.helpers.scripted_drafter import ScriptedDrafter

GREEDY = SamplingParams(temperature=0.0)
FEW = st.lists(st.integers(0, 2), max_size=30)


def answering(prompt: Sequence[int], index: int = 0, limit: int = 1000) -> Answer:
    return Answer(id=index, request=Request(tokens=tuple(prompt), params=GREEDY), limit=limit)


# --- n-grams ---


def naive_match(tokens: list[int]) -> tuple[int, int]:
    for length in range(LONGEST, SHORTEST - 1, -1):
        for place in range(len(tokens) - 1, length - 1, -1):
            if tokens[place - length : place] == tokens[len(tokens) - length :]:
                return length, place
    return 0, 0


@given(FEW, FEW)
def test_a_match_is_the_longest_and_of_those_the_last(first: list[int], second: list[int]) -> None:
    history = History(first)
    history.extend(second)
    assert history.match() == naive_match(first + second) == History(first + second).match()


@given(FEW, st.integers(1, 20))
def test_a_draft_copies_what_followed_and_then_itself(tokens: list[int], count: int) -> None:
    history = History(tokens)
    matched, place = history.match()
    draft = history.draft(count)
    assert len(draft) == (count if matched else 0)
    whole = tokens + draft
    assert all(whole[len(tokens) + i] == whole[place + i] for i in range(len(draft)))
    assert history.tokens == tokens


def test_a_loop_is_drafted_as_a_loop() -> None:
    assert History([9, 1, 2, 3, 1, 2, 3, 1, 2]).draft(7) == [3, 1, 2, 3, 1, 2, 3]


def test_answers_are_followed_and_forgotten_by_index() -> None:
    drafter = NgramDrafter()
    one, other = answering([5, 6, 7, 8, 5, 6]), answering([1, 2, 3], 1)
    assert drafter.propose(one, 4).count == 4 and drafter.propose(one, 4).kind == 2
    assert drafter.propose(other, 4).count == 0
    one.answer += [7]
    assert drafter.propose(one, 2).kind == 3
    assert drafter.draft([(one, 3), (other, 1)]) == [[8, 5, 6], []]
    drafter.end(0)
    assert drafter.draft([(answering([4, 4, 4]), 2)]) == [[4, 4]]


# --- lengths ---


@given(
    st.integers(0, 8),
    st.floats(0.0, 1.0),
    st.lists(st.floats(0.01, 2.0), min_size=9, max_size=9),
    st.floats(0.0, 0.5),
)
def test_one_answers_draft_is_the_best_one(
    count: int, acceptance: float, more: list[float], draft_seconds: float
) -> None:
    seconds = [sum(more[: rows + 1]) for rows in range(9)]

    def rate(length: int) -> float:
        tokens = sum(acceptance**i for i in range(length + 1))
        return tokens / (seconds[length] + draft_seconds * length)

    odds = [Odds(count=count, acceptance=acceptance)]
    (length,) = plan_lengths(
        odds,
        most_rows=100,
        step_seconds=lambda rows: seconds[rows - 1],
        draft_seconds=draft_seconds,
    )
    assert 0 <= length <= count
    assert rate(length) == pytest.approx(max(rate(i) for i in range(count + 1)))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=3
    ),
    st.integers(0, 6),
)
def test_several_answers_share_the_rows_where_they_pay_most(
    answers: list[tuple[int, float]], more_rows: int
) -> None:
    odds = [Odds(count=count, acceptance=acceptance) for count, acceptance in answers]
    most = len(odds) + more_rows

    def seconds(rows: int) -> float:
        return 1.0 + 0.2 * rows

    def rate(lengths: Sequence[int]) -> float:
        tokens = sum(
            sum(one.acceptance**i for i in range(length + 1))
            for one, length in zip(odds, lengths, strict=True)
        )
        return tokens / seconds(len(odds) + sum(lengths))

    lengths = plan_lengths(odds, most_rows=most, step_seconds=seconds)
    assert len(odds) + sum(lengths) <= most
    possible = product(*(range(one.count + 1) for one in odds))
    best = max(rate(choice) for choice in possible if len(odds) + sum(choice) <= most)
    assert rate(lengths) == pytest.approx(best)


def test_free_rows_are_all_taken_and_dear_ones_none() -> None:
    odds = [Odds(count=5, acceptance=0.9), Odds(count=2, acceptance=0.9)]
    assert plan_lengths(odds, most_rows=99, step_seconds=lambda rows: 1.0) == [5, 2]
    assert plan_lengths(odds, most_rows=4, step_seconds=lambda rows: 1.0) == [1, 1]
    assert plan_lengths(odds, most_rows=99, step_seconds=float) == [0, 0]
    # Eight rows cost what two do: a step over the threshold is worth it, half of one is not.
    cheap = plan_lengths(
        [Odds(count=7, acceptance=0.8)], most_rows=9, step_seconds=lambda n: 1.0 if n == 1 else 2.5
    )
    assert cheap == [7]


# --- estimates ---


def test_costs_lie_between_what_was_measured() -> None:
    costs = Costs()
    assert not costs.known(1)
    costs.observe(1, 10.0)
    assert costs.seconds(1) == 10.0 < costs.seconds(5) < costs.seconds(6) < 20.0
    for seconds in (30.0, 1000.0, 30.0):  # an interrupted step says nothing
        costs.observe(9, seconds)
    assert costs.seconds(9) == 30.0 and costs.seconds(5) == pytest.approx(20.0)
    assert costs.seconds(13) == pytest.approx(40.0)
    for _ in range(300):
        costs.observe(2, 11.0)
    assert not costs.known(1) and not costs.known(9)
    assert costs.seconds(1) == 11.0


def test_acceptance_follows_what_happens_and_fades() -> None:
    acceptance = Acceptance()
    before = acceptance.rate
    for _ in range(20):
        acceptance.observe(8, 0)
    low = acceptance.rate
    assert low < 0.1
    for _ in range(400):
        acceptance.rest()
    assert low < acceptance.rate and acceptance.rate == pytest.approx(before, rel=0.3)
    for _ in range(20):
        acceptance.observe(4, 4)
    assert acceptance.rate > 0.9


def simulate(steps: int, *, right: bool, row: float) -> list[int]:
    """Lengths of drafts that are all right or all wrong, where a step of n rows takes
    ``1 + row * (n - 1)``."""
    one = answering([1], limit=100000)
    speculation = Speculation(ScriptedDrafter({0: []}, vocab_size=9), clock=lambda: 0.0)
    lengths = []
    for _ in range(steps):
        drafts = speculation.plan([one], 64)
        length = len(drafts.tokens[0])
        accepted = length if right else 0
        one.answer += [0] * (accepted + 1)
        speculation.observe([one], drafts, [accepted], 1.0 + row * length)
        lengths.append(length)
    assert one.drafted == sum(lengths)
    assert one.accepted == (sum(lengths) if right else 0)
    return lengths


def test_drafts_grow_where_they_are_right_and_rows_are_cheap() -> None:
    lengths = simulate(40, right=True, row=0.05)
    assert lengths[0] == 0 and set(lengths[5:]) == {8}


@pytest.mark.parametrize("row", [0.02, 0.1, 0.5])
def test_drafts_end_where_they_are_wrong_and_are_tried_again_in_the_end(row: float) -> None:
    lengths = simulate(1000, right=False, row=row)
    assert sum(lengths[50:]) * row < 0.03 * 950  # of the time of plain decoding
    assert any(lengths[100:])


def test_drafts_end_where_rows_are_dear() -> None:
    lengths = simulate(100, right=True, row=1.0)
    assert sum(lengths[20:]) == 0 < sum(lengths)


def test_time_that_drafting_takes_counts() -> None:
    pace = Observations()
    pace.costs.observe(1, 1.0)
    pace.costs.observe(9, 1.1)
    odds = [Odds(count=8, acceptance=0.9)]
    plan = {"most_rows": 64, "step_seconds": pace.costs.seconds}
    pace.observe_draft(8, 0.8)
    assert plan_lengths(odds, **plan, draft_seconds=pace.draft_seconds)[0] > 2
    for _ in range(5):
        pace.observe_draft(8, 80.0)
    assert plan_lengths(odds, **plan, draft_seconds=pace.draft_seconds) == [0]


@pytest.mark.parametrize("count", [0, 65])
def test_drafts_of_no_sensible_length_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"^drafts of {count} tokens; "):
        Speculation(NgramDrafter(), draft_tokens=count)
