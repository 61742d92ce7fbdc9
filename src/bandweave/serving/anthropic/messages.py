"""Anthropic's messages to those of a conversation.

Neighbouring turns of one role are one turn, as Anthropic has it. Results of tools, which stand in
the user's turns there, are messages of their own here.
"""

from __future__ import annotations

from bandweave.serving.anthropic.signature import omitted_thought
from bandweave.serving.errors import ApiError, bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.turns import PARAGRAPH, Message, Turns

_ROLES = ("user", "assistant", "system")
_BILLING = "x-anthropic-billing-header:"
_REFERENCE = "tool_reference"


def read_messages(fields: Fields) -> list[Message]:
    """The system's text first. ``ApiError`` for what is no conversation."""
    turns = Turns()
    turns.system(_texts(fields, "system"))
    some = False
    for one in fields.objects("messages"):
        some = True
        role = one.one_of("role", _ROLES)
        if role == "assistant":
            _assistant(one, turns)
        elif role == "user":
            _user(one, turns)
        else:
            turns.system(_texts(one, "content"))
    if not some or not turns.messages:
        raise bad("messages says nothing; give at least one that does", "messages")
    return turns.messages


def found_tools(fields: Fields) -> list[str]:
    """Those that results of the client's searches name. Of messages that have been read."""
    return [
        part.text("tool_name")
        for message in fields.objects("messages")
        if isinstance(message.any("content"), list)
        for block in message.objects("content")
        if block.any("type") == "tool_result" and isinstance(block.any("content"), list)
        for part in block.objects("content")
        if part.any("type") == _REFERENCE
    ]


def forget_thoughts(messages: list[Message], but: int) -> None:
    """Takes the thoughts out of all but the last few turns that have some."""
    for message in reversed(messages):
        if message.get("reasoning_content"):
            if but:
                but -= 1
            else:
                del message["reasoning_content"]


def _user(fields: Fields, turns: Turns) -> None:
    if isinstance(fields.any("content"), str):
        turns.user(fields.text("content"))
        return
    blocks = _blocks(fields, "content")
    if not blocks:
        raise bad(f"{fields.name('content')} has no blocks; give at least one",
                  fields.name("content"))  # fmt: skip
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_result":
            called = block.text("tool_use_id")
            if not turns.called(called):
                raise bad(f"{block.name('tool_use_id')} is {called[:80]!r}, but no tool_use before "
                          "it has that id", block.name("tool_use_id"))  # fmt: skip
            text = _result(block)
            turns.result(called, f"Error: {text}" if block.flag("is_error") else text)
        elif kind == "mid_conv_system":
            turns.user(_texts(block, "content"))
        else:
            turns.user(_text(block))


def _assistant(fields: Fields, turns: Turns) -> None:
    if isinstance(fields.any("content"), str):
        turns.assistant(fields.text("content"))
        return
    turns.assistant()
    for block in _blocks(fields, "content"):
        kind = block.text("type")
        if kind == "thinking":
            shown = block.text("thinking", "")
            turns.thought(shown or omitted_thought(block.text("signature", "")))
        elif kind == "redacted_thinking":
            pass  # encrypted by Anthropic, for Anthropic: nobody else can read it
        elif kind == "tool_use":
            arguments = block.object("input")
            turns.call(block.text("id"), block.text("name"), arguments.values if arguments else {})
        else:
            turns.assistant(_text(block))


def _texts(fields: Fields, name: str) -> str:
    """A text, or blocks of it; empty where there is none. The line that Claude Code writes for its
    bills is left out: it differs in every request, and no prefix would ever be found again."""
    value = fields.any(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return _unbilled(value)
    texts = [_unbilled(_text(block)) for block in _blocks(fields, name)]
    return PARAGRAPH.join(text for text in texts if text)


def _result(block: Fields) -> str:
    """What came of a call. A tool that it names is among the tools from then on."""
    if not isinstance(block.any("content"), list):
        return _texts(block, "content")
    texts = [
        f"The tool {part.text('tool_name')} can be called now."
        if part.any("type") == _REFERENCE
        else _text(part)
        for part in block.objects("content")
    ]
    return PARAGRAPH.join(text for text in texts if text)


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
