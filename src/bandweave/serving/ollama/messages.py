"""Ollama's messages, tools and forms to those of a conversation."""

from __future__ import annotations

from typing import Any

from bandweave.serving.answers.conversation import Conversation
from bandweave.serving.answers.grammars import Form
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields
from bandweave.serving.turns import Turns

_ROLES = ("system", "user", "assistant", "tool")
_LEVELS = ("low", "medium", "high", "max")
_MOST_TOOLS = 1024
_NO_PARAMETERS = {"type": "object", "properties": {}}


def read_chat(fields: Fields, served: Served) -> Conversation:
    """``ApiError`` for what is no conversation."""
    turns = Turns()
    waiting: list[tuple[str, str]] = []  # calls without a result: ids and names
    for message in fields.objects("messages"):
        _message(message, turns, waiting)
    return _conversation(fields, served, turns, [_tool(one) for one in _tools(fields)])


def read_prompt(fields: Fields, served: Served) -> Conversation:
    """A single prompt, put as a chat."""
    turns = Turns()
    turns.system(fields.text("system", ""))
    turns.user(fields.text("prompt"))
    return _conversation(fields, served, turns, [])


def read_form(fields: Fields) -> Form | None:
    """What the answer must look like."""
    value = fields.any("format")
    if value is None or value == "":
        return None
    if value == "json":
        return Form(kind="json", field="format")
    if not isinstance(value, dict):
        raise bad('format must be "json" or a JSON schema', "format")
    return Form(kind="schema", value=value, field="format")


def _conversation(
    fields: Fields, served: Served, turns: Turns, tools: list[dict[str, Any]]
) -> Conversation:
    thinks, effort = _thinks(fields, served)
    if not turns.messages:
        raise bad("messages says nothing; give at least one that does", "messages")
    last = turns.messages[-1]
    if last.get("tool_calls"):
        raise bad("the last message calls tools; give their results in messages of the role tool",
                  "messages")  # fmt: skip
    return Conversation(
        messages=turns.messages,
        tools=tools,
        form=read_form(fields),
        thinks=thinks,
        effort=effort,
        continues=last["role"] == "assistant",
    )


def _thinks(fields: Fields, served: Served) -> tuple[bool | None, str]:
    value = fields.any("think")
    if value is None:
        return None, ""
    if isinstance(value, str):
        effort, thinks = fields.one_of("think", _LEVELS), True
    else:
        effort, thinks = "", fields.flag("think")
    if thinks and not served.can_think:
        raise bad(f"{served.name} does not support thinking; leave think out", "think")
    return thinks, effort


def _message(fields: Fields, turns: Turns, waiting: list[tuple[str, str]]) -> None:
    role = fields.one_of("role", _ROLES)
    fields.refuse("images", [], why="this model reads text alone")
    text = fields.text("content", "")
    if role == "system":
        turns.system(text)
    elif role == "user":
        turns.user(text)
    elif role == "tool":
        turns.result(_answered(fields, waiting), text)
    else:
        turns.assistant(text)
        turns.thought(fields.text("thinking", ""))
        for call in fields.objects("tool_calls"):
            _call(call, turns, waiting)


def _call(fields: Fields, turns: Turns, waiting: list[tuple[str, str]]) -> None:
    function = fields.need("function")
    arguments = function.object("arguments")
    id, name = (
        fields.text("id", f"call_{len(turns.messages)}_{len(waiting)}"),
        function.text("name"),
    )
    turns.call(id, name, dict(arguments.values) if arguments else {})
    waiting.append((id, name))


def _answered(fields: Fields, waiting: list[tuple[str, str]]) -> str:
    """Which call a result is of: the one that it names, else the first that has none yet."""
    wanted, name = fields.text("tool_call_id", ""), fields.text("tool_name", "")
    for place, (id, called) in enumerate(waiting):
        if (wanted and id == wanted) or (not wanted and name in ("", called)):
            del waiting[place]
            return id
    raise bad(f"{fields.name('role')} is tool, but no call before it waits for that result",
              fields.name("role"))  # fmt: skip


def _tools(fields: Fields) -> list[Fields]:
    return list(fields.objects("tools", most=_MOST_TOOLS))


def _tool(fields: Fields) -> dict[str, Any]:
    fields.one_of("type", ("function",), "function")
    function = fields.need("function")
    parameters = function.object("parameters")
    return {
        "type": "function",
        "function": {
            "name": function.text("name"),
            "description": function.text("description", ""),
            "parameters": dict(parameters.values) if parameters else _NO_PARAMETERS,
        },
    }
