"""Tools over HTTP: none, some, required, named; streamed and not; grammars and histories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.chat_models import ALWAYS, CLOCK, THINKER, WEATHER, ChatServer, without_ids

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich 🇨🇭"}}\n</tool_call>'
TWO = f'Let me see.\n{CALL}\n<tool_call>\n{{"name": "clock", "arguments": {{}}}}\n</tool_call>'
TOOLS = [WEATHER, CLOCK]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(THINKER) as server:
        yield server


@pytest.fixture(autouse=True)
def as_new(server: ChatServer) -> None:
    server.says, server.script = "Hello", {}


def calls_of(choice: dict[str, Any]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"])
            for call in choice["message"].get("tool_calls", ())]  # fmt: skip


def grammar(server: ChatServer) -> str:
    return server.engine.requests[-1].grammar


def test_calls_streamed_and_not(server: ChatServer) -> None:
    server.says = TWO
    choice = server.said(tools=TOOLS)
    assert choice["message"]["content"] == "Let me see."
    assert calls_of(choice) == [("weather", '{"city": "Zürich 🇨🇭"}'), ("clock", "{}")]
    assert choice["finish_reason"] == "tool_calls"
    assert without_ids(server.streamed(tools=TOOLS)) == without_ids(choice)
    assert not grammar(server)


def test_content_is_null_where_there_are_only_calls(server: ChatServer) -> None:
    server.says = CALL
    for choice in (server.said(tools=TOOLS), server.streamed(tools=TOOLS)):
        assert choice["message"]["content"] is None
        assert choice["finish_reason"] == "tool_calls"


def test_the_reason_is_stop_where_no_call_was_made(server: ChatServer) -> None:
    for choice in (server.said(tools=TOOLS), server.streamed(tools=TOOLS)):
        assert choice["message"]["content"] == "Hello"
        assert choice["finish_reason"] == "stop"


def test_wrong_json_stays_content(server: ChatServer) -> None:
    server.says = '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>'
    for choice in (server.said(tools=TOOLS), server.streamed(tools=TOOLS)):
        assert choice["message"]["content"] == server.says
        assert "tool_calls" not in choice["message"]
        assert choice["finish_reason"] == "stop"


def test_a_call_cut_by_the_length(server: ChatServer) -> None:
    server.says = CALL
    length = len(server.tokenizer.encode(CALL[:62], special_tokens=False))
    for choice in (server.said(tools=TOOLS, max_tokens=length),
                   server.streamed(tools=TOOLS, max_tokens=length)):  # fmt: skip
        assert calls_of(choice)[0][1].startswith('{"city": "Z')
        assert choice["finish_reason"] == "length"


def test_none_does_not_show_the_tools(server: ChatServer) -> None:
    server.says = CALL
    choice = server.said(tools=TOOLS, tool_choice="none")
    assert "tools:" not in server.prompt
    assert choice["message"]["content"] == CALL
    assert choice["finish_reason"] == "stop"
    server.said(tools=TOOLS, tool_choice="auto")
    assert '"name": "weather"' in server.prompt


def test_required_and_named_are_held_by_grammars(server: ChatServer) -> None:
    server.says = CALL
    choice = server.said(tools=TOOLS, tool_choice="required")
    assert "weather" in grammar(server) and "clock" in grammar(server)
    assert choice["finish_reason"] == "tool_calls"
    server.said(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "clock"}})
    assert "weather" not in grammar(server) and "clock" in grammar(server)
    assert server.engine.learnt == 1


def test_not_parallel_is_one_call(server: ChatServer) -> None:
    server.says = TWO
    for choice in (server.said(tools=TOOLS, parallel_tool_calls=False),
                   server.streamed(tools=TOOLS, parallel_tool_calls=False)):  # fmt: skip
        assert [name for name, _ in calls_of(choice)] == ["weather"]
        assert choice["finish_reason"] == "tool_calls"


def test_a_strict_tool_is_called_by_its_schema(server: ChatServer) -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    server.said(tools=[strict])
    assert "%json" in grammar(server)


def test_definitions_of_a_schema_are_kept(server: ChatServer) -> None:
    schema = {"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}},
              "$defs": {"place": {"enum": ["here", "there"]}}}  # fmt: skip
    tool = {"type": "function", "function": {"name": "go", "parameters": schema}}
    server.said(tools=[tool], tool_choice="required")
    assert '"$defs"' in grammar(server) and '"$defs"' in server.prompt


def test_a_history_with_calls(server: ChatServer) -> None:
    """Arguments are objects before the template sees them; content may be null."""
    call = {"id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}  # fmt: skip
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": None,
         "function_call": {"name": "clock", "arguments": ""}},
        {"role": "function", "name": "clock", "content": "noon"},
    ]  # fmt: skip
    server.said(messages=messages)
    assert "assistant: <tool_call>weather city</tool_call><|end|>" in server.prompt
    assert "tool: rain" in server.prompt and "tool: noon" in server.prompt
    assert "<tool_call>clock</tool_call>" in server.prompt


def test_functions_as_they_were(server: ChatServer) -> None:
    server.says = TWO
    functions = [tool["function"] for tool in TOOLS]
    choice = server.said(functions=functions)
    assert choice["message"]["function_call"]["name"] == "weather"
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"
    deltas = [one["choices"][0] for one in server.chunks(functions=functions)]
    said = [one["delta"]["function_call"] for one in deltas if "function_call" in one["delta"]]
    assert said[0]["name"] == "weather"
    joined = "".join(one["arguments"] for one in said)
    assert json.loads(joined) == {"city": "Zürich 🇨🇭"}
    assert deltas[-1]["finish_reason"] == "function_call"
    server.said(functions=functions, function_call={"name": "clock"})
    assert "weather" not in grammar(server)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "none"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (
            {
                "tools": [
                    {"type": "function",
                     "function": {"name": "f", "parameters": {"type": "object", "properties": {
                         "a": {"type": "string", "pattern": "(?=a)"}}}}}
                ],
                "tool_choice": "required",
            },
            "tools",
        ),
    ],
)  # fmt: skip
def test_refusals(server: ChatServer, body: dict[str, Any], param: str) -> None:
    error = server.refused(**body)
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"


def test_a_model_without_tools_says_so() -> None:
    with ChatServer(ALWAYS) as server:
        error = server.refused(tools=TOOLS)
        assert error["param"] == "tools" and "knows no tools" in error["message"]
        server.said(tools=TOOLS, tool_choice="none")
