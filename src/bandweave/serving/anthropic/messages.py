"""Anthropic's messages to those of a conversation.

Neighbouring turns of one role are one turn, as Anthropic has it. Results of tools, which stand in
the user's turns there, are messages of their own here.
"""

from __future__ import annotations

from typing import Any

from bandweave.serving.anthropic.signature import omitted_thought
from bandweave.serving.errors import ApiError, bad, unsupported
from bandweave.serving.fields import Fields

Message = dict[str, Any]

_ROLES = ("user", "assistant", "system")
_BILLING = "x-anthropic-billing-header:"
_PARAGRAPH = "\n\n"


def read_messages(fields: Fields) -> list[Message]:
    """The system's text first. ``ApiError`` for what is no conversation."""
    found: list[Message] = []
    if system := _texts(fields, "system"):
        found.append({"role": "system", "content": system})
    calls: dict[str, str] = {}  # the names of the tools that were called, by the calls' ids
    some = False
    for one in fields.objects("messages"):
        some = True
        role = one.one_of("role", _ROLES)
        if role == "assistant":
            _assistant(one, found, calls)
        elif role == "user":
            _user(one, found, calls)
        else:
            # Templates know the system at the start alone.
            early = not found or found[-1]["role"] == "system"
            if text := _texts(one, "content"):
                _say(found, "system" if early else "user", text)
    if not some:
        raise bad("messages is empty; give at least one", "messages")
    return found


def forget_thoughts(messages: list[Message], but: int) -> None:
    """Takes the thoughts out of all but the last few turns that have some."""
    for message in reversed(messages):
        if message.get("reasoning_content"):
            if but:
                but -= 1
            else:
                del message["reasoning_content"]


def _user(fields: Fields, found: list[Message], calls: dict[str, str]) -> None:
    if isinstance(fields.any("content"), str):
        _say(found, "user", fields.text("content"))
        return
    for block in _blocks(fields, "content"):
        kind = block.text("type")
        if kind == "tool_result":
            called = block.text("tool_use_id")
            if called not in calls:
                raise bad(f"{block.name('tool_use_id')} is {called[:80]!r}, but no tool_use before "
                          "it has that id", block.name("tool_use_id"))  # fmt: skip
            text = _texts(block, "content")
            if block.flag("is_error"):
                text = f"Error: {text}"
            found.append({"role": "tool", "content": text, "tool_call_id": called,
                          "name": calls[called]})  # fmt: skip
        elif kind == "mid_conv_system":
            _say(found, "user", _texts(block, "content"))
        else:
            _say(found, "user", _text(block))


def _assistant(fields: Fields, found: list[Message], calls: dict[str, str]) -> None:
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": ""})
    message = found[-1]
    if isinstance(fields.any("content"), str):
        message["content"] += fields.text("content")
        return
    for block in _blocks(fields, "content"):
        kind = block.text("type")
        if kind == "thinking":
            thought = block.text("thinking", "") or omitted_thought(block.text("signature", ""))
            message["reasoning_content"] = message.get("reasoning_content", "") + thought
        elif kind == "redacted_thinking":
            pass  # encrypted by Anthropic, for Anthropic: nobody else can read it
        elif kind == "tool_use":
            id, name = block.text("id"), block.text("name")
            arguments = block.object("input")
            calls[id] = name
            function = {"name": name, "arguments": dict(arguments.values) if arguments else {}}
            message.setdefault("tool_calls", []).append(
                {"id": id, "type": "function", "function": function}
            )
        else:
            message["content"] += _text(block)


def _say(found: list[Message], role: str, text: str) -> None:
    if not found or found[-1]["role"] != role:
        found.append({"role": role, "content": text})
    elif text:
        before = found[-1]["content"]
        found[-1]["content"] = f"{before}{_PARAGRAPH}{text}" if before else text


def _texts(fields: Fields, name: str) -> str:
    """A text, or blocks of it; empty where there is none. The line that Claude Code writes for its
    bills is left out: it differs in every request, and no prefix would ever be found again."""
    value = fields.any(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return _unbilled(value)
    texts = [_unbilled(_text(block)) for block in _blocks(fields, name)]
    return _PARAGRAPH.join(text for text in texts if text)


def _unbilled(text: str) -> str:
    if not text.lstrip().startswith(_BILLING):
        return text
    return text.lstrip().partition("\n")[2].lstrip("\n")


def _text(block: Fields) -> str:
    kind = block.text("type")
    if kind != "text":
        raise _unreadable(block, kind)
    return block.text("text")


def _blocks(fields: Fields, name: str) -> list[Fields]:
    if not isinstance(fields.any(name), list):
        raise bad(f"{fields.name(name)} must be a string or a list of blocks", fields.name(name))
    return list(fields.objects(name))


def _unreadable(block: Fields, kind: str) -> ApiError:
    return unsupported(block.name("type"), f"this model reads text, no {kind[:60]!r}")
