"""Items of ``/v1/responses`` to the messages of a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.openai.thoughts import unsealed
from bandweave.serving.turns import PARAGRAPH, Message, Turns

CUSTOM_INPUT = "input"  # the one argument that a tool has whose input is a text
_PLAIN_NAMESPACES = ("", "functions")  # the latter is where functions are that have none

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def offered_name(namespace: str, name: str) -> str:
    """By which the model knows a tool: those of all namespaces stand in one list."""
    if namespace in _PLAIN_NAMESPACES:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def read_input(fields: Fields) -> list[Message]:
    """``ApiError`` for what is no conversation. Instructions come first."""
    turns = Turns()
    turns.system(fields.text("instructions", ""))
    if isinstance(fields.any("input"), str):
        turns.user(fields.text("input"))
        return turns.messages
    if fields.has("input") and not isinstance(fields.any("input"), list):
        raise bad("input must be a string or a list of items", "input")
    for item in fields.objects("input"):
        kind = item.text("type", "message")
        if kind == "item_reference":
            raise unsupported(item.name("type"), "items are not kept here; send the item itself")
        read = _READERS.get(kind)
        if read is None:
            raise unsupported(item.name("type"), f"this server knows no {kind[:60]!r}")
        read(item, turns)
    if all(message["role"] == "system" for message in turns.messages):
        turns.user("")  # so do clients ask whether a model is there
    return turns.messages


def _message(item: Fields, turns: Turns) -> None:
    role = item.one_of("role", _ROLES)
    text = _texts(item, "content")
    if role == "assistant":
        turns.assistant(text, between=PARAGRAPH)
    elif role == "user":
        turns.user(text)
    else:
        turns.system(text)


def _call(item: Fields, turns: Turns) -> None:
    text = item.text("arguments")
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise bad(f"{item.name('arguments')} must be a JSON object as text", item.name("arguments"))
    turns.call(item.text("call_id"), _name(item), arguments)


def _custom_call(item: Fields, turns: Turns) -> None:
    turns.call(item.text("call_id"), _name(item), {CUSTOM_INPUT: item.text("input")})


def _name(item: Fields) -> str:
    return offered_name(item.text("namespace", ""), item.text("name"))


def _shell_call(item: Fields, turns: Turns) -> None:
    """Of the shell that older programs have."""
    action = item.need("action").values
    id = item.text("call_id", "") or item.text("id")
    turns.call(id, "local_shell", {key: value for key, value in action.items() if key != "type"})


def _shell_output(item: Fields, turns: Turns) -> None:
    _result(item, "call_id" if item.has("call_id") else "id", turns)


def _output(item: Fields, turns: Turns) -> None:
    _result(item, "call_id", turns)


def _result(item: Fields, name: str, turns: Turns) -> None:
    id = item.text(name)
    if not turns.called(id):
        raise bad(f"{item.name(name)} is {id[:80]!r}, but no call before it has that id",
                  item.name(name))  # fmt: skip
    turns.result(id, _texts(item, "output"))


def _agents_message(item: Fields, turns: Turns) -> None:
    """What another agent of the client's says to this one."""
    turns.user(_texts(item, "content"))


def _passed_over(item: Fields, turns: Turns) -> None:
    """What is read elsewhere, as tools are, or says nothing that could be read, as a search that
    OpenAI ran: what came of it is in what was said then."""


def _reasoning(item: Fields, turns: Turns) -> None:
    """The whole thoughts where they are there, else the summary, which is all that can be read of
    what another server sealed."""
    whole = "".join(_text_of(part) for part in item.objects("content"))
    whole = whole or unsealed(item.text("encrypted_content", ""))
    turns.thought(whole or PARAGRAPH.join(_text_of(part) for part in item.objects("summary")))


_READERS: dict[str, Callable[[Fields, Turns], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
    "local_shell_call": _shell_call,
    "local_shell_call_output": _shell_output,
    "agent_message": _agents_message,
    "additional_tools": _passed_over,
    "web_search_call": _passed_over,
    "reasoning": _reasoning,
}


def _texts(fields: Fields, name: str) -> str:
    """A text, or parts of it."""
    value: Any = fields.any(name)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise bad(f"{fields.name(name)} must be a string or a list of parts", fields.name(name))
    texts: list[str] = []
    for part in fields.objects(name):
        kind = part.text("type")
        if kind not in _TEXTS:
            raise unsupported(part.name("type"), f"this model reads text, no {kind[:60]!r}")
        texts.append(part.text(_TEXTS[kind]))
    return "".join(texts)


def _text_of(part: Fields) -> str:
    return part.text("text")
