"""Conversations: what keeping the read prompts saves, and what users wait for each other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.cli.plan.setup import parse_machines
from bandweave.models.known_models import known_model
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.search.columns import limit_setup
from bandweave.planning.search.conversation import (
    Conversation,
    conversation_cost,
    most_streams,
)
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Plan, find_plans
from tests.helpers.plan_command import PlanCommand, flowing, narrow


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> PlanCommand:
    return PlanCommand(capsys)


def best(on: str = "m4-max-128", streams: int = 1, context: int = 8192) -> Plan:
    asked = Question(model=known_model("llama-3.1-8b"), weights=find_format("q4"), streams=streams,
                     context=context)  # fmt: skip
    found = find_plans(asked, limit_setup(parse_machines([on], [], {})))
    assert found is not None
    return found.best


TALKS = st.builds(
    Conversation,
    users=st.integers(1, 9),
    turns=st.integers(1, 12),
    prompt=st.integers(1, 3000),
    answer=st.integers(1, 800),
    prefix=st.sampled_from([0, 1, 20000]),
    reuse=st.booleans(),
)


@settings(max_examples=20)
@given(TALKS)
def test_keeping_what_was_read_never_hurts(talk: Conversation) -> None:
    cost = conversation_cost([best()], talk)
    assert len(cost.kept) == len(cost.again) == talk.turns
    for kept, again in zip(cost.kept, cost.again, strict=True):
        assert kept.last_first_token_s <= again.last_first_token_s * 1.001
        assert kept.first_token_s <= kept.last_first_token_s
        assert kept.read <= again.read
        assert kept.tokens_per_s == again.tokens_per_s
    last = cost.turns[-1]
    assert last.cached + talk.prompt + talk.answer == talk.tokens
    assert cost.seconds == pytest.approx(sum(turn.seconds for turn in cost.turns))
    assert cost.turns == (cost.kept if talk.reuse else cost.again)


def test_the_first_turn_of_one_user_is_the_same() -> None:
    cost = conversation_cost([best()], Conversation(turns=3, prefix=5000))
    assert cost.kept[0] == cost.again[0]
    assert cost.kept[2].last_first_token_s < 0.5 * cost.again[2].last_first_token_s


def test_a_common_prefix_is_read_once() -> None:
    talk = Conversation(users=10, prefix=20000, prompt=100)
    cost = conversation_cost([best()], talk)
    kept, again = cost.kept[0], cost.again[0]
    assert again.last_first_token_s == pytest.approx(10 * again.first_token_s)
    assert kept.last_first_token_s < 0.2 * again.last_first_token_s


def test_as_many_streams_as_memory_holds() -> None:
    one = best(streams=1)
    most = most_streams(one)
    there = limit_setup(parse_machines(["m4-max-128"], [], {}))
    fits = [
        find_plans(Question(model=one.question.model, weights=one.question.weights,
                            context=8192, streams=streams), there) is not None
        for streams in (most, most + 2)
    ]  # fmt: skip
    assert fits == [True, False]


def test_report(plan: PlanCommand) -> None:
    arguments = ("llama-3.1-70b", "--on", "2x m3-ultra-512", "--link", "tb5-rdma", "--users", "5",
                 "--turns", "20", "--prompt", "300", "--answer", "200")  # fmt: skip
    text = plan(*arguments, "--reuse")
    assert "5 conversations of 20 turns" in flowing(text) and "the engine keeps" in flowing(text)
    assert "What a prefix cache does" in text and narrow(text)
    assert "bandweave today: " in text.split("What a prefix cache does")[1]
    without = flowing(plan(*arguments))
    assert "reads all of it again each turn" in without and "--reuse counts" in without
    value = json.loads(plan(*arguments, "--reuse", "--json"))
    assert value["streams"] == 5 and value["context"] == 20 * 500
    talk = value["conversation"]
    assert len(talk["kept"]) == len(talk["read_again"]) == 20
    today = talk["bandweave"]["kept"][19]
    assert today["first_token_s"] > talk["kept"][19]["first_token_s"]
    assert talk["kept"][19]["read"] == 300 and talk["read_again"][19]["read"] == 19 * 500 + 300


def test_conversations_of_compared_setups(plan: PlanCommand) -> None:
    text = plan("llama-3.1-8b", "--on", "m4-max-128", "--compare", "rtx-4090", "--users", "2",
                "--turns", "2", "--reuse")  # fmt: skip
    assert "A: m4-max-128: 2 conversations" in text and "B: rtx-4090: 2 conversations" in text
