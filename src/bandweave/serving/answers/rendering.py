"""Rendering: a conversation to a prompt, in the words that the model's template knows.

Templates call the same thing by several names, want arguments of calls as objects or as texts, and
some cannot be told not to think. What they know is looked for in their source.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.answers.syntaxes import Knowledge, knowledge_of
from bandweave.serving.errors import bad
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.files import TextError

_SWITCHES = ("enable_thinking", "thinking")
_NEAREST = {"minimal": "low", "xhigh": "high", "max": "high"}  # of harmony's three efforts
_FINAL = "<|channel|>final<|message|>"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """``thinks``: it ends with the start of thoughts; ``speaks``: with the start of what is said,
    so that no thoughts come."""

    text: str
    thinks: bool
    speaks: bool


def render(
    template: ChatTemplate,
    syntax: Syntax,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]],
    thinks: bool | None,
    effort: str,
    variables: Mapping[str, Any],
    continues: bool,
    begins: bool,
) -> Prompt:
    """See ``Conversation``. ``TextError`` for what the template refuses, ``ApiError`` for what the
    model cannot do."""
    known = knowledge_of(template)
    thinks, values = _values(known, syntax, thinks, effort, variables)
    end = ""
    if continues:
        messages, end = _open_ended(messages)
    text = _render(template, syntax, known, messages, tools, values, begins and not continues)
    if continues:
        text, found, _ = text.rpartition(end)
        if not found:
            raise bad("this model's chat template leaves the last message out, so that it cannot "
                      "be continued", "messages")  # fmt: skip
        return Prompt(text=text, thinks=False, speaks=True)
    speaks = False
    if thinks is False and begins:
        text, speaks = _thoughtless(text, syntax, known, bool(tools))
    tail = text.rstrip()
    opened = bool(syntax.think_open) and tail.endswith(syntax.think_open)
    closed = bool(syntax.think_close) and tail.endswith(syntax.think_close)
    return Prompt(text=text, thinks=opened, speaks=speaks or closed)


def _values(
    known: Knowledge,
    syntax: Syntax,
    thinks: bool | None,
    effort: str,
    variables: Mapping[str, Any],
) -> tuple[bool | None, dict[str, Any]]:
    """Whether the model shall think, and all that the template is told."""
    given = variables.get("reasoning_effort")
    effort = given if isinstance(given, str) else effort
    if effort == "none":
        thinks = False
    elif effort and thinks is None and not known.effort:
        thinks = True
    for name in _SWITCHES:
        if isinstance(value := variables.get(name), bool):
            thinks = value
    values = dict(variables)
    if thinks is not None:
        values.update({name: thinks for name in known.switches})
    if effort and effort != "none" and known.effort:
        nearest = _NEAREST.get(effort, effort) if syntax.tools == "harmony" else effort
        values["reasoning_effort"] = nearest
    elif given == "none":
        del values["reasoning_effort"]
    return thinks, values


def _thoughtless(text: str, syntax: Syntax, known: Knowledge, has_tools: bool) -> tuple[str, bool]:
    """A prompt whose answer has no thoughts: they are empty, and over."""
    if syntax.tools == "harmony":
        if has_tools:
            raise bad("this model cannot be kept from thinking while it has tools; ask for a low "
                      "reasoning_effort", "reasoning_effort")  # fmt: skip
        return text + _FINAL, True
    if not syntax.think_open:
        return text, False
    tail = text.rstrip()
    if tail.endswith(syntax.think_open):
        return f"{tail}\n\n{syntax.think_close}\n\n", True
    if known.switches or tail.endswith(syntax.think_close):
        return text, False
    return f"{text}{syntax.think_open}\n\n{syntax.think_close}\n\n", True


def _open_ended(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], str]:
    """The messages with a mark at the end of the last one, and the mark."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        raise bad("an answer that continues the last message needs one of the assistant's, without "
                  "calls of tools", "messages")  # fmt: skip
    mark = f"[{secrets.token_hex(16)}]"
    return [*messages[:-1], {**last, "content": f"{last.get('content') or ''}{mark}"}], mark


def _render(
    template: ChatTemplate,
    syntax: Syntax,
    known: Knowledge,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    begins: bool,
) -> str:
    def rendered(as_text: bool) -> str:
        return template.render(
            [_message(one, syntax, known, as_text) for one in messages],
            add_generation_prompt=begins,
            tools=list(tools) or None,
            variables={**{name: list(tools) for name in known.tools if tools}, **values},
        )

    try:
        return rendered(False)
    except TextError:
        if not any(one.get("tool_calls") for one in messages):
            raise
        try:
            return rendered(True)  # as templates want it that put texts together
        except TextError:
            pass
        raise


class _Arguments(dict[str, Any]):
    """Arguments of a call. A template that would write them as Python does wants them as text."""

    def __str__(self) -> str:
        raise TypeError("arguments of a call are wanted as text")


def _message(
    message: Mapping[str, Any], syntax: Syntax, known: Knowledge, as_text: bool
) -> Mapping[str, Any]:
    """A message as this template knows it."""
    found = dict(message)
    if known.short_ids and isinstance(found.get("tool_call_id"), str):
        found["tool_call_id"] = _short(found["tool_call_id"])
    thoughts = found.get("reasoning_content")
    calls = found.get("tool_calls")
    if syntax.tools == "harmony" and thoughts and not (calls and found.get("content")):
        found["thinking"] = thoughts
    if calls:
        found["tool_calls"] = [_call(one, known, as_text) for one in calls]
    return found


def _call(call: Mapping[str, Any], known: Knowledge, as_text: bool) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # What a model has written that is no JSON stays as it is.
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments) if arguments.strip() else {}
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False) if as_text else _Arguments(arguments)
    found = {**call, "function": {**function, "arguments": arguments}}
    if known.short_ids and isinstance(found.get("id"), str):
        found["id"] = _short(found["id"])
    return found


def _short(id: str) -> str:
    """An id of nine letters and digits, alike for alike ones."""
    if len(id) == 9 and id.isalnum():
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:9]
