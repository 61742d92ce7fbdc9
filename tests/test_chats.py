"""Chats over HTTP: messages, thoughts and their switches, limits, log-probabilities, and that what
is streamed is what is not streamed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Request
from tests.helpers.chat_models import (
    ALWAYS,
    CLOCK,
    THINKER,
    WEATHER,
    ChatServer,
    joined,
    without_ids,
)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(THINKER) as server:
        yield server


@pytest.fixture(scope="module")
def always() -> Iterator[ChatServer]:
    with ChatServer(ALWAYS) as server:
        yield server


@pytest.fixture(autouse=True)
def as_new(server: ChatServer, always: ChatServer) -> None:
    for one in (server, always):
        one.says, one.script = "Hello", {}


# --- what is streamed ---

_PIECES = ("<think>", "</think>", "Hello", " ", "\n\n", "é", "東京", "👩\u200d🚀", "🇨🇭", "STOP",
           "ST", "<",
           "<tool_call>", "</tool_call>", '{"name": "weather", "arguments": {"city": "Bern"}}',
           '<tool_call>\n{"name": "clock", "arguments": {"é": [1, {"b": "👍🏽"}]}}\n</tool_call>',
           '{"name": "weather", "arguments": {"city": ')  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_streamed_is_unstreamed(server: ChatServer, seed: int) -> None:
    chosen = random.Random(seed)
    server.says = "".join(chosen.choices(_PIECES, k=chosen.randint(1, 12)))
    body: dict[str, Any] = {}
    if chosen.random() < 0.6:
        body["tools"] = [WEATHER, CLOCK]
    if chosen.random() < 0.5:
        body["stop"] = ["STOP", "京👩"]
    if chosen.random() < 0.3:
        body["max_tokens"] = chosen.randint(1, 40)
    if chosen.random() < 0.2:
        body["parallel_tool_calls"] = False
    whole, streamed = server.said(**body), server.streamed(**body)
    assert without_ids(streamed) == without_ids(whole)
    assert "STOP" not in (whole["message"]["content"] or "") or "stop" not in body


@pytest.mark.parametrize("text", ["👩‍🚀🇨🇭é東京", "a\u200db", "क्षि", "ﷺ"])
def test_characters_split_over_tokens(server: ChatServer, text: str) -> None:
    server.says = text
    assert len(server.tokenizer.encode(text)) > len(text)
    assert server.streamed()["message"]["content"] == text
    for chunk in server.chunks():
        assert "\ufffd" not in json.dumps(chunk, ensure_ascii=False)


def test_broken_bytes_are_shown_once(server: ChatServer) -> None:
    """Cut within a character, an answer ends with one replacement."""
    server.says = "a👍"
    found = server.streamed(max_tokens=3)["message"]["content"]
    assert found == server.said(max_tokens=3)["message"]["content"] == "a\ufffd"


def test_several_choices(server: ChatServer) -> None:
    server.says = ["One", "<think>Two</think>2", "Three", "Four"]
    _, whole = server.chat(n=4)
    assert [one["message"]["content"] for one in whole["choices"]] == ["One", "2", "Three", "Four"]
    chunks = server.chunks(n=4)
    assert [joined(chunks, index) for index in range(4)] == whole["choices"]


# --- limits ---


def test_limits(server: ChatServer) -> None:
    server.says = "Hello there, how are you?"
    for body, count in (({"max_tokens": 2}, 2), ({"max_tokens": 9, "max_completion_tokens": 3}, 3)):
        _, found = server.chat(**body)
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["usage"]["completion_tokens"] == count
    for body in ({}, {"max_tokens": -1}, {"max_tokens": 2, "max_completion_tokens": -1}):
        assert server.said(**body)["finish_reason"] == "stop"
        assert server.engine.requests[-1].params.max_tokens is None


@pytest.mark.parametrize(
    ("said", "stop", "content", "reason"),
    [
        ("one two", "two", "one ", "stop"),
        ("one two", ["e t", "e two"], "on", "stop"),
        ("abcabd", ["abd"], "abc", "stop"),
        ("abcab", ["abd"], "abcab", "stop"),
        ("aaab", ["aab", "ab"], "a", "stop"),
        ("one", ["x", "y", "z", "w"], "one", "stop"),
    ],
)
def test_stops(
    server: ChatServer, said: str, stop: str | list[str], content: str, reason: str
) -> None:
    server.says = said
    for choice in (server.said(stop=stop), server.streamed(stop=stop)):
        assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)


# --- messages ---


def test_messages_of_every_kind(server: ChatServer) -> None:
    messages = [
        {"role": "system", "content": ""},
        {"role": "developer", "content": [{"type": "text", "text": "Be "},
                                          {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "One", "name": "Ann", "unknown": {"a": 1}},
        {"role": "user", "content": ["Two"]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "Yes", "reasoning": "hm"},
        {"role": "assistant", "content": "Yes", "reasoning_content": "so"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "well"},
                                          {"type": "text", "text": "Yes"}]},
        {"role": "user", "content": None},
    ]  # fmt: skip
    assert server.said(messages=messages, unknown_field=[1])["message"]["content"] == "Hello"
    said = ["system: ", "system: Be kind.", "user: One", "user: Two", "assistant: No.",
            "assistant: <think>hm</think>Yes", "assistant: <think>so</think>Yes",
            "assistant: <think>well</think>Yes",
            "user: "]  # fmt: skip
    assert server.prompt == "".join(f"<|user|>{one}<|end|>" for one in said) + "<|assistant|>"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"messages": [{"role": "user", "content": "!refuse"}]}, "messages", "in no order"),
        ({"messages": []}, "messages", "empty"),
        ({"max_tokens": -2}, "max_tokens", "from 1"),
        ({"max_tokens": 0}, "max_tokens", "from 1"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "messages[0].role", "one of"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "reads text",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "list"),
        (
            {"continue_final_message": True},
            "messages",
            "one of the assistant's",
        ),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "both",
        ),
        ({"thinking_token_budget": 5}, "thinking_token_budget", "cannot be ended early"),
        ({"thinking": 3}, "thinking", "true, false"),
        ({"think": "loudly"}, "think", "low, medium"),
        ({"verbosity": "low"}, "verbosity", "how long"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention", "in memory"),
        ({"moderation": {"model": "m"}}, "moderation", "not supported"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "not supported",
        ),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "no token id"),
    ],
)
def test_refusals(server: ChatServer, body: dict[str, Any], param: str, says: str) -> None:
    error = server.refused(**body)
    assert error["param"] == param and says in error["message"], error


def test_an_answer_goes_on_with_the_last_message(server: ChatServer) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once "}]
    server.says = "upon a <think>"
    choice = server.said(messages=messages, continue_final_message=True)
    assert server.prompt == "<|user|>user: Hi<|end|><|user|>assistant: Once "
    assert choice["message"]["content"] == "upon a <think>"
    assert "reasoning_content" not in choice["message"]
    server.said(messages=messages, add_generation_prompt=False)
    assert server.prompt.endswith("assistant: Once <|end|>")


# --- thoughts ---

THOUGHT = "<think>\nhm, 東京\n</think>\n\nYes."


def test_thoughts_are_split_off_and_counted(server: ChatServer) -> None:
    server.says = THOUGHT
    status, found = server.chat()
    message = found["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm, 東京", "Yes.")
    assert server.streamed()["message"] == message
    thought = THOUGHT.partition("</think>")[0] + "</think>"
    count = len(server.tokenizer.encode(thought, special_tokens=False))
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] == count
    usage = server.chunks(stream_options={"include_usage": True})[-1]["usage"]
    assert usage == found["usage"]


@pytest.mark.parametrize("fields", [("reasoning",), ("reasoning_content", "reasoning")])
def test_thoughts_in_the_fields_that_the_server_chose(fields: tuple[str, ...]) -> None:
    with ChatServer(THINKER, thought_fields=fields) as other:
        other.says = THOUGHT
        message = other.said()["message"]
        names = {"reasoning", "reasoning_content"} & message.keys()
        assert names == set(fields) and {message[name] for name in names} == {"hm, 東京"}
        assert other.streamed()["message"] == message
        assert " and ".join(fields) in other.refused(reasoning_format="none")["message"]


def test_thoughts_that_the_client_does_not_want(server: ChatServer) -> None:
    server.says = THOUGHT
    _, found = server.chat(include_reasoning=False)
    message = found["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Yes.", "refusal": None}
    assert server.streamed(include_reasoning=False)["message"] == message
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert server.refused(reasoning_format="none")["param"] == "reasoning_format"
    server.said(reasoning_format="auto")


@pytest.mark.parametrize(
    "switch",
    [
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"thinking": {"type": "disabled"}},
        {"enable_thinking": False},
        {"think": False},
    ],
)
def test_thoughts_are_switched_off(
    server: ChatServer, always: ChatServer, switch: dict[str, Any]
) -> None:
    """By the template's own switch, or by thoughts that are over before they begin."""
    server.said(**switch)
    assert server.prompt.endswith("<|assistant|><think></think>")
    always.says = "Yes"
    assert always.said(**switch)["message"] == {
        "role": "assistant", "content": "Yes", "refusal": None,
    }  # fmt: skip
    assert always.prompt.endswith("<|assistant|><think>\n\n</think>\n\n")


@pytest.mark.parametrize("switch", [{}, {"reasoning_effort": "high"}, {"thinking": True}])
def test_thoughts_that_the_prompt_opens(always: ChatServer, switch: dict[str, Any]) -> None:
    always.says = "hm</think>Yes"
    message = always.said(**switch)["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes")


def test_a_form_begins_after_the_thoughts(server: ChatServer, always: ChatServer) -> None:
    form = {"response_format": {"type": "json_object"}}
    for one, begins in ((server, "start: (r1? "), (always, "start: r")):
        one.said(**form)
        assert one.engine.requests[-1].grammar.startswith(begins)
        assert "think>" in one.engine.requests[-1].grammar
        one.said(**form, reasoning_effort="none")
        assert "think>" not in one.engine.requests[-1].grammar


def test_effort_is_told_to_templates_that_know_it() -> None:
    template = "{{ messages[0].content }} {{ reasoning_effort }}"
    with ChatServer(template) as server:
        server.said(reasoning_effort="low")
        assert server.prompt == "Hi low"
        server.said(think="max")
        assert server.prompt == "Hi max"
        server.said(chat_template_kwargs={"reasoning_effort": "high"})
        assert server.prompt == "Hi high"


# --- log-probabilities ---


def told(token: int, request: Request) -> TokenLogprobs:
    count = request.logprobs or 0
    return TokenLogprobs(logprob=-0.5, ids=tuple(range(10, 10 + count)),
                         logprobs=tuple(-1.0 - i for i in range(count)))  # fmt: skip


@pytest.mark.parametrize("top", [0, 1, 20])
def test_logprobs(server: ChatServer, top: int) -> None:
    server.says, server.script = "<think>hm</think>é 東京", {"logprobs": told}
    choice = server.said(logprobs=True, top_logprobs=top)
    content = choice["logprobs"]["content"]
    assert bytes(byte for one in content for byte in one["bytes"]).decode() == "é 東京"
    assert all(len(one["top_logprobs"]) == top and one["logprob"] == -0.5 for one in content)
    assert all(math.isfinite(entry["logprob"]) for one in content for entry in one["top_logprobs"])
    assert server.streamed(logprobs=True, top_logprobs=top)["logprobs"] == choice["logprobs"]


def test_logprobs_that_cannot_be(server: ChatServer) -> None:
    assert server.refused(logprobs=True, top_logprobs=21)["param"] == "top_logprobs"
    assert server.refused(top_logprobs=1)["param"] == "top_logprobs"
    assert server.said()["logprobs"] is None
