"""What each protocol's requests ask for, and what of them cannot be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bandweave.serving.answers.conversation import Conversation
from bandweave.serving.answers.grammars import Form
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.anthropic.request import read_conversation as read_anthropics
from bandweave.serving.anthropic.signature import sign
from bandweave.serving.errors import ApiError
from bandweave.serving.fields import Fields
from bandweave.serving.ollama.messages import read_chat
from bandweave.serving.ollama.options import read_options
from bandweave.serving.openai.responses_request import Question, read_question
from bandweave.serving.openai.responses_tools import Origin
from bandweave.serving.openai.thoughts import sealed
from tests.helpers.scripted_engine import Script
from tests.helpers.server import served_by

_PLAIN = served_by(lambda request, tokenizer: Script(tokens=()))
_SERVED = replace(_PLAIN, syntax=Syntax(think_open="<think>", think_close="</think>"))
_USER = {"role": "user", "content": "Hi"}
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}}
    ],
}
_RESULT = {"role": "tool", "content": "warm", "tool_call_id": "c1", "name": "f"}
_FUNCTION = {"name": "f", "description": "d", "parameters": _SCHEMA}


def _anthropics(**fields: Any) -> Conversation:
    body = {"model": "demo", "max_tokens": 9, "messages": [_USER], **fields}
    return read_anthropics(Fields(body), _SERVED)


def _openais(**fields: Any) -> Question:
    return read_question(Fields({"model": "demo", "input": "Hi", **fields}), _SERVED)


def _ollamas(**fields: Any) -> Conversation:
    return read_chat(Fields({"model": "demo", "messages": [_USER], **fields}), _SERVED)


# --- Anthropic ---

_USED = {"type": "tool_use", "id": "c1", "name": "f", "input": {"city": "Rome"}}


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Be brief.", "Be brief."),
        ([{"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
          {"type": "text", "text": "Two."}], "One.\n\nTwo."),
        ([{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.100.7b4; "
           "cc_entrypoint=cli; cch=eb6c6;"}, {"type": "text", "text": "You are."}], "You are."),
        ("x-anthropic-billing-header: cc_version=2.1.9; cch=1;\nYou are.", "You are."),
        ("Say x-anthropic-billing-header: twice.", "Say x-anthropic-billing-header: twice."),
    ],
)  # fmt: skip
def test_anthropics_system(system: Any, expected: str) -> None:
    messages = _anthropics(system=system).messages
    assert messages == [{"role": "system", "content": expected}, _USER]


def test_a_system_that_says_nothing_is_none() -> None:
    for system in ("", [], "x-anthropic-billing-header: cch=1;"):
        assert _anthropics(system=system).messages == [_USER]


def test_what_the_system_says_later_is_the_users() -> None:
    messages = [_USER, {"role": "system", "content": "Mind the gap."}]
    assert _anthropics(messages=messages).messages == [
        {"role": "user", "content": "Hi\n\nMind the gap."}
    ]


def test_anthropics_calls_and_results() -> None:
    assistant = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "See:"},
        _USED,
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "warm"}]},
        {"type": "text", "text": "And?"},
    ]
    messages = [
        _USER,
        {"role": "assistant", "content": assistant},
        {"role": "user", "content": results},
    ]
    assert _anthropics(messages=messages).messages == [
        _USER,
        {**_CALLED, "content": "See:", "reasoning_content": "Hm."},
        _RESULT,
        {"role": "user", "content": "And?"},
    ]


def test_tools_that_are_found_later() -> None:
    late = {"name": "late", "input_schema": _SCHEMA, "defer_loading": True}
    tools = [late, {"name": "f", "input_schema": _SCHEMA}, {**late, "name": "never"}]
    result = {"type": "tool_result", "tool_use_id": "c1",
              "content": [{"type": "tool_reference", "tool_name": "late"}]}  # fmt: skip
    messages = [_USER, {"role": "assistant", "content": [_USED]},
                {"role": "user", "content": [result]}]  # fmt: skip

    def names(**fields: Any) -> list[str]:
        return [one["function"]["name"] for one in _anthropics(tools=tools, **fields).tools]

    assert names() == ["f"]
    assert names(messages=messages) == ["late", "f"]
    told = _anthropics(tools=tools, messages=messages).messages[-1]["content"]
    assert told == "The tool late can be called now."


def test_a_tool_that_failed_says_so() -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "none", "is_error": True}
    messages = [_USER, {"role": "assistant", "content": [_USED]},
                {"role": "user", "content": [result]}]  # fmt: skip
    assert _anthropics(messages=messages).messages[-1]["content"] == "Error: none"


def test_thoughts_that_were_omitted_come_back_with_their_signature() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": sign("Hm. 東", omitted=True)}
    messages = [_USER, {"role": "assistant", "content": [thought, _USED]},
                {"role": "user", "content": "So?"}]  # fmt: skip
    assert _anthropics(messages=messages).messages[1]["reasoning_content"] == "Hm. 東"


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", [0, 1, 2]), ({"type": "thinking_turns", "value": 2}, [1, 2]), (None, [2])],
)
def test_thoughts_of_earlier_turns_can_be_cleared(keep: Any, kept: list[int]) -> None:
    messages: list[dict[str, Any]] = []
    for turn in range(3):
        thought = {"type": "thinking", "thinking": f"T{turn}", "signature": ""}
        said = {"type": "text", "text": "Yes."}
        messages += [_USER, {"role": "assistant", "content": [thought, said]}]
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": keep}]}
    found = _anthropics(messages=[*messages, _USER], context_management=edits).messages
    thoughts = [one["reasoning_content"] for one in found if "reasoning_content" in one]
    assert thoughts == [f"T{turn}" for turn in kept]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", "", True)),
        ({"type": "none"}, ("none", "", True)),
        ({"type": "any"}, ("required", "", True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", "", False)),
        ({"type": "tool", "name": "f"}, ("required", "f", True)),
    ],
)
def test_anthropics_tools(choice: Any, expected: tuple[str, str, bool]) -> None:
    tool = {"name": "f", "description": "d", "input_schema": _SCHEMA,
            "cache_control": {"type": "ephemeral"}}  # fmt: skip
    found = _anthropics(tools=[tool], tool_choice=choice)
    assert found.tools == [{"type": "function", "function": _FUNCTION}]
    assert (found.choice, found.named, found.parallel) == expected


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (None, None),
        ({"type": "adaptive"}, None),
        ({"type": "disabled"}, False),
        ({"type": "enabled", "budget_tokens": 1024}, True),
    ],
)
def test_anthropics_thinking(thinking: Any, expected: bool | None) -> None:
    assert _anthropics(thinking=thinking).thinks is expected


def test_a_model_that_cannot_think_need_not() -> None:
    body = {"model": "demo", "messages": [_USER],
            "thinking": {"type": "enabled", "budget_tokens": 1024}}  # fmt: skip
    assert read_anthropics(Fields(body), _PLAIN).thinks is None


def test_anthropics_forms_and_effort() -> None:
    form = {"type": "json_schema", "schema": _SCHEMA}
    found = _anthropics(output_config={"format": form, "effort": "max"})
    expected = Form(kind="schema", value=_SCHEMA, field="output_config.format.schema")
    assert (found.form, found.effort) == (expected, "max")
    expected = Form(kind="schema", value=_SCHEMA, field="output_format.schema")
    assert _anthropics(output_format=form).form == expected


def test_an_answer_that_is_begun_goes_on() -> None:
    begun = {"role": "assistant", "content": "The best is"}
    assert _anthropics(messages=[_USER, begun]).continues
    assert not _anthropics().continues


def test_what_clients_of_anthropics_send_besides() -> None:
    _anthropics(
        metadata={"user_id": "u"}, cache_control={"type": "ephemeral"}, service_tier="auto",
        speed="standard", mcp_servers=[], diagnostics={"previous_message_id": None}, betas=["x"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": []}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "none", "content": ""}]}]},
         "messages[0].content[0].tool_use_id"),
        ({"messages": [_USER, {"role": "assistant", "content": [_USED]}]}, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"messages": [_USER, {"role": "assistant", "content": [_USED]},
                       {"role": "user", "content": [{
                           "type": "tool_result", "tool_use_id": "c1", "content": [
                               {"type": "tool_reference", "tool_name": "lost"}]}]}]}, "messages"),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}],
          "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]},
         "tools[0].input_examples"),
        ({"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code_execution"]}]},
         "tools[0].allowed_callers"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": "loud"}}, "thinking.display"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
         "context_management.edits[0].type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"task_budget": {"type": "tokens", "total": 1}}},
         "output_config.task_budget"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"speed": "fast"}, "speed"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"fallbacks": [{"model": "x"}]}, "fallbacks"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
    ],
)  # fmt: skip
def test_what_anthropics_clients_cannot_have(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as raised:
        _anthropics(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)
    assert param.split("[")[0].split(".")[0] in raised.value.message


# --- responses ---

_CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"city": "Rome"}'}


def test_items_become_turns() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed("Hm.")},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "See:", "annotations": []}]},
        _CALL,
        {"type": "function_call_output", "call_id": "c1", "output": "warm"},
        {"role": "developer", "content": "Mind the gap."},
    ]  # fmt: skip
    assert _openais(input=items, instructions="Be brief.").conversation.messages == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        _USER,
        {**_CALLED, "content": "See:", "reasoning_content": "Hm."},
        _RESULT,
        {"role": "user", "content": "Mind the gap."},
    ]


@pytest.mark.parametrize(
    ("reasoning", "thought"),
    [
        ({"content": [{"type": "reasoning_text", "text": "A"}], "summary": []}, "A"),
        ({"encrypted_content": sealed("B 東"), "summary": []}, "B 東"),
        ({"encrypted_content": "gAAAAA", "summary": [{"type": "summary_text", "text": "C"}]}, "C"),
        ({"encrypted_content": "gAAAAA", "summary": []}, None),
        ({"encrypted_content": "bandweave.1.!", "summary": []}, None),
    ],
)
def test_thoughts_of_earlier_responses(reasoning: Any, thought: str | None) -> None:
    items = [_USER, {"type": "reasoning", "id": "rs_1", **reasoning},
             {"role": "assistant", "content": "Yes."}, _USER]  # fmt: skip
    message = _openais(input=items).conversation.messages[1]
    assert message.get("reasoning_content") == thought


def test_custom_tools_take_a_text() -> None:
    items = [
        _USER,
        {"type": "custom_tool_call", "call_id": "c1", "name": "p", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    ]
    question = _openais(input=items, tools=[{"type": "custom", "name": "p"}])
    assert question.conversation.messages[1]["tool_calls"][0]["function"]["arguments"] == {
        "input": "x"
    }
    parameters = question.conversation.tools[0]["function"]["parameters"]
    assert parameters["properties"] == {"input": {"type": "string"}}
    assert question.tools.origins == {"p": Origin(name="p", custom=True)}


@pytest.mark.parametrize("syntax", ["lark", "regex"])
def test_the_model_reads_the_grammar_of_a_custom_tools_input(syntax: str) -> None:
    form = {"type": "grammar", "syntax": syntax, "definition": "start: /a+/"}
    tool = {"type": "custom", "name": "p", "description": "Patches.", "format": form}
    question = _openais(tools=[tool])
    description = question.conversation.tools[0]["function"]["description"]
    assert description.startswith("Patches.\n\n") and description.endswith("\n\nstart: /a+/")
    assert question.tools.told == [tool]


_SPACE = {"type": "namespace", "name": "mcp__files", "description": "Files of mine.", "tools": [
    {"type": "function", "name": "read", "description": "Reads.", "parameters": _SCHEMA,
     "strict": False},
    {"type": "custom", "name": "patch", "description": "", "format": {"type": "text"}},
]}  # fmt: skip


def test_tools_of_namespaces_there_and_back() -> None:
    calls = [{**_CALL, "name": "read", "namespace": "mcp__files"},
             {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x",
              "namespace": "mcp__files"}]  # fmt: skip
    question = _openais(tools=[_SPACE], input=[_USER, *calls])
    tools = [tool["function"] for tool in question.conversation.tools]
    names = ["mcp__files__read", "mcp__files__patch"]
    assert [tool["name"] for tool in tools] == names
    assert tools[0]["description"] == "Files of mine.\n\nReads."
    called = question.conversation.messages[1]["tool_calls"]
    assert [call["function"]["name"] for call in called] == names
    assert question.tools.told == [_SPACE]
    assert [*question.tools.origins.values()] == [
        Origin(name="read", namespace="mcp__files"),
        Origin(name="patch", namespace="mcp__files", custom=True),
    ]


def test_tools_may_stand_in_the_input_and_functions_is_no_namespace() -> None:
    tools = [{**_SPACE, "name": "functions"}]
    item = {"type": "additional_tools", "role": "developer", "tools": tools}
    question = _openais(input=[item, _USER], tool_choice="required")
    assert [*question.tools.origins.items()] == [
        ("read", Origin(name="read")), ("patch", Origin(name="patch", custom=True)),
    ]  # fmt: skip
    assert question.conversation.messages == [_USER]
    assert question.conversation.choice == "required"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ([{"type": "namespace", "name": "mcp__files"}], ["mcp__files__read", "mcp__files__patch"]),
        ([{"type": "custom", "name": "patch", "namespace": "mcp__files"}, {"type": "mcp"}],
         ["mcp__files__patch"]),
        ([{"type": "function", "name": "f"}], ["f"]),
    ],
)  # fmt: skip
def test_choices_among_namespaces(choice: list[Any], names: list[str]) -> None:
    found = _openais(
        tools=[_SPACE, {"type": "function", **_FUNCTION}],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": choice},
    ).conversation.tools
    assert [tool["function"]["name"] for tool in found] == names


def test_what_other_programs_have_in_their_history() -> None:
    items = [
        _USER,
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}},
        {"type": "local_shell_call", "call_id": "c1", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "id": "c1", "output": "a b"},
        {"type": "agent_message", "author": "/root", "recipient": "/root/w",
         "content": [{"type": "input_text", "text": "Go on."}]},
    ]  # fmt: skip
    messages = _openais(input=items).conversation.messages
    call = messages[1]["tool_calls"][0]["function"]
    assert call == {"name": "local_shell", "arguments": {"command": ["ls"], "env": {}}}
    assert messages[2:] == [{**_RESULT, "content": "a b", "name": "local_shell"},
                            {"role": "user", "content": "Go on."}]  # fmt: skip


def test_tools_that_openai_runs_are_left_out_and_the_answer_shows_it() -> None:
    function = {"type": "function", **_FUNCTION, "strict": True}
    others = [{"type": "web_search"}, {"type": "local_shell"}, {"type": "image_generation"},
              {"type": "tool_search", "execution": "client", "description": "d"}]  # fmt: skip
    question = _openais(tools=[*others, function])
    offered = {"type": "function", "function": {**_FUNCTION, "strict": True}}
    assert question.conversation.tools == [offered]
    assert question.tools.told == [function]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", "", ["f", "g"])),
        ("none", ("none", "", ["f", "g"])),
        ("required", ("required", "", ["f", "g"])),
        ({"type": "function", "name": "g"}, ("required", "g", ["f", "g"])),
        ({"type": "allowed_tools", "mode": "required",
          "tools": [{"type": "function", "name": "g"}, {"type": "web_search"}]},
         ("required", "", ["g"])),
    ],
)  # fmt: skip
def test_choices_of_tools(choice: Any, expected: tuple[str, str, list[str]]) -> None:
    tools = [{"type": "function", "name": name, "parameters": None} for name in "fg"]
    found = _openais(tools=tools, tool_choice=choice)
    names = [tool["function"]["name"] for tool in found.conversation.tools]
    assert (found.conversation.choice, found.conversation.named, names) == expected
    assert len(found.tools.told) == 2


def test_forms_and_effort_of_responses() -> None:
    form = {"type": "json_schema", "name": "n", "schema": _SCHEMA, "strict": True}
    found = _openais(text={"format": form, "verbosity": "medium"}, reasoning={"effort": "minimal"})
    expected = Form(kind="schema", value=_SCHEMA, field="text.format.schema")
    assert found.conversation.form == expected
    assert found.conversation.effort == "minimal"
    assert _openais(reasoning_effort="low").conversation.effort == "low"  # of Open WebUI
    expected = Form(kind="json", field="text.format")
    assert _openais(text={"format": {"type": "json_object"}}).conversation.form == expected
    assert _openais(text={"format": {"type": "text"}}).conversation.form is None


@pytest.mark.parametrize("given", [None, []])
def test_a_probe_without_input_is_asked_nothing(given: Any) -> None:
    nothing = {"role": "user", "content": ""}
    assert _openais(input=given, instructions="Be.").conversation.messages == [
        {"role": "system", "content": "Be."},
        nothing,
    ]
    assert _openais(input=given).conversation.messages == [nothing]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [_SPACE, {**_SPACE, "tools": _SPACE["tools"][:1]}]}, "tools"),
        ({"tools": [{"type": "function", "name": "f", "allowed_callers": ["programmatic"]}]},
         "tools[0].allowed_callers"),
        ({"tools": [{"type": "custom", "name": "p", "format": {"type": "grammar"}}]},
         "tools[0].format.syntax"),
        ({"tools": [_SPACE], "tool_choice": {"type": "allowed_tools", "mode": "auto",
          "tools": [{"type": "namespace", "name": "n"}]}}, "tool_choice.tools[0].name"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "function"}]}]},
         "input[0].tools[0].name"),
        ({"input": [{"type": "agent_message", "content": [{"type": "encrypted_content"}]}]},
         "input[0].content[0].type"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"input": [{**_CALL, "arguments": "[1]"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]},
         "input[0].call_id"),
    ],
)  # fmt: skip
def test_what_responses_cannot_do(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as raised:
        _openais(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)


# --- Ollama ---


def test_ollamas_results_belong_to_the_calls_that_wait() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("f", "g", "f")]
    messages = [
        _USER,
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls},
        {"role": "tool", "content": "1", "tool_name": "g"},
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "3", "tool_name": "f"},
    ]
    found = _ollamas(messages=messages).messages
    ids = [call["id"] for call in found[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert [one["tool_call_id"] for one in found[2:]] == [ids[1], ids[0], ids[2]]
    assert [one["name"] for one in found[2:]] == ["g", "f", "f"]
    assert found[1]["reasoning_content"] == "Hm."


def test_ollamas_tools_forms_and_thinking() -> None:
    found = _ollamas(tools=[{"type": "function", "function": _FUNCTION}], format=_SCHEMA,
                     think="low")  # fmt: skip
    assert found.tools == [{"type": "function", "function": _FUNCTION}]
    assert found.form == Form(kind="schema", value=_SCHEMA, field="format")
    assert (found.thinks, found.effort) == (True, "low")
    assert _ollamas(format="json", think=False).form == Form(kind="json", field="format")
    assert _ollamas(format="", think=False).thinks is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"format": "yaml"}, "format"),
        ({"think": "hard"}, "think"),
        ({"messages": [{"role": "user", "content": "Hi", "images": ["aa"]}]},
         "messages[0].images"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages"),
        ({"messages": [_USER, {"role": "tool", "content": "1"}]}, "messages[1].role"),
        ({"tools": [{"type": "other"}]}, "tools[0].type"),
        ({"messages": [_USER, {"role": "assistant",
                               "tool_calls": [{"function": {"name": "f"}}]}]}, "messages"),
    ],
)  # fmt: skip
def test_what_ollamas_clients_cannot_have(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as raised:
        _ollamas(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_ollamas_options() -> None:
    options = {"num_predict": 5, "num_ctx": 4096, "seed": 7, "temperature": 0.5, "top_k": 3,
               "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.2, "repeat_last_n": -1,
               "stop": ["a", "b"], "mirostat": 0, "mirostat_tau": 5.0, "num_keep": 4}  # fmt: skip
    found = read_options(Fields({"options": options, "keep_alive": "5m"}), _SERVED)
    assert (found.max_tokens, found.seed, found.top_k, found.stop) == (5, 7, 3, ("a", "b"))
    assert (found.temperature, found.top_p, found.min_p) == (0.5, 0.9, 0.1)
    assert found.repetition_penalty == 1.2
    for none in (-1, -2, 0):
        assert read_options(Fields({"options": {"num_predict": none}}), _SERVED).max_tokens is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"options": {"num_ctx": 4097}}, "options.num_ctx"),
        ({"options": {"num_gpu": 1}}, "options.num_gpu"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"options": {"repeat_penalty": 1.1, "repeat_last_n": 64}}, "options.repeat_last_n"),
        ({"options": {"temperature": -1}}, "options.temperature"),
        ({"options": []}, "options"),
        ({"keep_alive": 0}, "keep_alive"),
        ({"keep_alive": "0s"}, "keep_alive"),
    ],
)
def test_options_that_cannot_be_kept_to(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as raised:
        read_options(Fields(fields), _SERVED)
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize("stay", ["5m", "-1", -1, 300, "24h", None, "0.5h"])
def test_the_model_stays_as_long_as_anybody_asks(stay: Any) -> None:
    read_options(Fields({"keep_alive": stay}), _SERVED)
