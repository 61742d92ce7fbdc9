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

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


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
    turns.call(item.text("call_id"), item.text("name"), arguments)


def _custom_call(item: Fields, turns: Turns) -> None:
    turns.call(item.text("call_id"), item.text("name"), {CUSTOM_INPUT: item.text("input")})


def _output(item: Fields, turns: Turns) -> None:
    id = item.text("call_id")
    if not turns.called(id):
        raise bad(f"{item.name('call_id')} is {id[:80]!r}, but no call before it has that id",
                  item.name("call_id"))  # fmt: skip
    turns.result(id, _texts(item, "output"))


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
