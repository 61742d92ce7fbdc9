"""Thoughts of at most so many tokens: they are closed in time, between two characters, and what
comes behind them still has its form."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from bandweave.generation.guidance import Guidance
from bandweave.generation.thought_limit import ThoughtLimit, split_limit
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.grammars import Form, Wanted, grammar_of
from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.anthropic.request import MessagesRequest, read_request
from bandweave.serving.errors import ApiError
from bandweave.serving.fields import Fields
from bandweave.serving.openai.chat import read_chat
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.chat_models import ALWAYS, THINKER, byte_tokenizer
from tests.helpers.scripted_engine import Script, ScriptedEngine
from tests.helpers.server import served_by

_SYNTAX = Syntax(think_open="<think>", think_close="</think>", thinks=True)


@cache
def _vocabulary() -> tuple[Tokenizer, Guidance]:
    tokenizer = byte_tokenizer(("<think>", "</think>"))
    texts = [tokenizer.added_bytes(token) for token in range(tokenizer.size)]
    return tokenizer, Guidance(texts, tokenizer.eos_token_ids)


def _id(name: str) -> int:
    token = _vocabulary()[0].token_to_id(name)
    assert token is not None
    return token


def _limit(most: int, *, begun: bool = True) -> ThoughtLimit:
    return ThoughtLimit(most=most, opens=_id("<think>"), closes=_id("</think>"), begun=begun)


def _play(grammar: str, wanted: list[int]) -> list[int]:
    """What comes of a model that wants these tokens, and else the lowest that may come."""
    matcher = _vocabulary()[1].matcher(grammar)
    said: list[int] = []
    for token in wanted:
        allowed = matcher.allowed()
        chosen = token if allowed[token] else int(np.flatnonzero(allowed)[0])
        matcher.accept(chosen)
        said.append(chosen)
    return said


@pytest.mark.parametrize("most", range(1, 9))
def test_thoughts_are_closed_between_two_characters(most: int) -> None:
    tokenizer, _ = _vocabulary()
    wanted = tokenizer.encode("aé東👩é東👩aaaa", special_tokens=False)
    said = _play(_limit(most).before(""), wanted)
    place = said.index(_id("</think>"))
    assert most <= place <= most + 3
    thought = bytes(b for token in said[:place] for b in tokenizer.text_bytes(token))
    assert thought.decode()
    assert said[place + 1 :] == wanted[place + 1 :]  # what is said is free


def test_thoughts_that_are_closed_in_time_are_left_alone() -> None:
    tokenizer, _ = _vocabulary()
    text = tokenizer.encode("aaa", special_tokens=False)
    wanted = [*text, _id("</think>"), *text, *text]
    assert _play(_limit(4).before(""), wanted) == wanted


def test_only_thoughts_are_counted() -> None:
    tokenizer, _ = _vocabulary()
    text = tokenizer.encode("aaaaaa", special_tokens=False)
    assert _play(_limit(2, begun=False).before(""), text) == text
    said = _play(_limit(2, begun=False).before(""), [_id("<think>"), *text])
    assert said == [_id("<think>"), *text[:2], _id("</think>"), *text[:3]]


def test_what_comes_behind_has_its_form() -> None:
    tokenizer, _ = _vocabulary()
    wanted = Wanted(form=Form(kind="json"), tools={})
    grammar = grammar_of(wanted, _SYNTAX, Marks.of(_SYNTAX, tokenizer))
    text = tokenizer.encode('no end of thoughts {"a": 1}', special_tokens=False)
    said = _play(_limit(5).before(grammar), [*text[:6], *text[-8:]])
    assert said[5] == _id("</think>")
    answer = bytes(b for token in said[6:] for b in tokenizer.text_bytes(token))
    assert json.loads(answer) == {"a": 1}


def test_a_limit_travels_before_a_grammar() -> None:
    for grammar in ("", "start: /a/\n"):
        assert split_limit(_limit(7).before(grammar)) == (_limit(7), grammar)
        assert split_limit(grammar) == (None, grammar)
    with pytest.raises(ValueError, match="can close thoughts"):
        _vocabulary()[1].matcher(replace(_limit(7), closes=1 << 20).before(""))
    with pytest.raises(ValueError):
        _vocabulary()[1].matcher("#thoughts all\n")


# --- as clients ask for it ---


def _ask(served: Served, **fields: Any) -> MessagesRequest:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3000,
            "thinking": {"type": "enabled", "budget_tokens": 1024}, **fields}  # fmt: skip
    return asyncio.run(read_request(Fields(body), served, "", 1.0))


def _thinker(template: str) -> Served:
    tokenizer, _ = _vocabulary()
    engine = ScriptedEngine(play=lambda request: Script(tokens=()))
    return served_by(
        lambda request, tokenizer: Script(tokens=()),
        answering=Answering(engine, tokenizer),
        tokenizer=tokenizer,
        vocab_size=tokenizer.size,
        template=ChatTemplate(template),
        syntax=replace(_SYNTAX, thinks=False),
    )


def test_a_budget_is_a_limit_of_thoughts() -> None:
    for template, begun in ((ALWAYS, True), (THINKER, False)):
        served = _thinker(template)
        expected = _limit(1024, begun=begun).before("")
        assert _ask(served).ask.grammar == expected
        engine = served.answering.engine
        assert isinstance(engine, ScriptedEngine)
        assert engine.learnt == 1
        # The answer ends before its thoughts would have to.
        assert _ask(served, max_tokens=1025).ask.grammar == ""
        assert _ask(served, thinking={"type": "disabled"}).ask.grammar == ""


def test_a_budget_of_a_chat() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "thinking_token_budget": 0}
    asked = asyncio.run(read_chat(Fields(body), _thinker(ALWAYS), "", 1.0))
    assert asked.ask.grammar == _limit(0).before("")


def test_thoughts_that_close_with_several_tokens_cannot_be_ended() -> None:
    served = served_by(
        lambda request, tokenizer: Script(tokens=()),
        template=ChatTemplate(THINKER),
        syntax=replace(_SYNTAX, thinks=False),
    )
    with pytest.raises(ApiError, match="cannot be ended early") as raised:
        _ask(served)
    assert (raised.value.status, raised.value.param) == (400, "thinking.budget_tokens")
