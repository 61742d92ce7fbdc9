"""Messages of OpenAI's chats, and what comes with them, to a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bandweave.serving.answers.conversation import Conversation
from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.openai.forms import read_form
from bandweave.serving.openai.tools import read_choice, read_tools

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXTS = ("text", "input_text", "output_text")
_MOST_EFFORT = 32
_LEVELS = ("low", "medium", "high", "max")  # of Ollama's switch for thoughts


def read_conversation(fields: Fields) -> Conversation:
    """``ApiError`` for what is no conversation."""
    messages = read_messages(fields)
    if not messages:
        raise bad("messages is empty; give at least one", "messages")
    choice, named = read_choice(fields)
    variables = fields.object("chat_template_kwargs")
    continues = fields.flag("continue_final_message")
    # As vLLM has it, only one of the two can be true; the default gives way.
    begins = fields.flag("add_generation_prompt", not continues)
    if continues and begins:
        raise bad("continue_final_message and add_generation_prompt cannot both be true; set the "
                  "latter to false", "continue_final_message")  # fmt: skip
    effort = fields.text("reasoning_effort", "")
    if not effort and isinstance(fields.any("think"), str):
        effort = fields.text("think")
    if len(effort) > _MOST_EFFORT:
        raise bad("reasoning_effort is no word", "reasoning_effort")
    return Conversation(
        messages=messages,
        tools=read_tools(fields),
        choice=choice,
        named=named,
        parallel=fields.flag("parallel_tool_calls", True),
        form=read_form(fields),
        thinks=_thinks(fields),
        effort=effort,
        variables={} if variables is None else dict(variables.values),
        continues=continues,
        begins=begins,
    )


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """The messages of a body, as templates know them."""
    messages: list[dict[str, Any]] = []
    for one in fields.objects("messages"):
        message = _message(one)
        if one.text("role") == "function":
            _legacy_result(one, message, messages)
        messages.append(message)
    return messages


def _thinks(fields: Fields) -> bool | None:
    """The switches of other servers: ``thinking`` as Anthropic and GLM have it, or a flag,
    ``enable_thinking``, and Ollama's ``think``, which Open WebUI sends to every server."""
    for name in ("enable_thinking", "thinking", "think"):
        value = fields.any(name)
        if name == "think" and isinstance(value, str):
            return bool(fields.one_of(name, _LEVELS))
        if isinstance(value, bool):
            return value
        if isinstance(value, dict):
            kind = Fields(value, name).one_of("type", ("enabled", "disabled", "adaptive"))
            return None if kind == "adaptive" else kind == "enabled"
        if value is not None:
            raise bad(f"{name} must be true, false, or an object with a type", name)
    return None


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.one_of("role", _ROLES)
    role = {"developer": "system", "function": "tool"}.get(role, role)
    message: dict[str, Any] = {"role": role, "content": read_content(fields)}
    if fields.has("name"):
        message["name"] = fields.text("name")
    if role == "tool" and fields.has("tool_call_id"):
        message["tool_call_id"] = fields.text("tool_call_id")
    if role != "assistant":
        return message
    for name in ("reasoning_content", "reasoning"):
        if isinstance(thoughts := fields.any(name), str) and thoughts:
            message["reasoning_content"] = thoughts
            break
    else:
        if thoughts := _thoughts(fields):
            message["reasoning_content"] = thoughts
    if not message["content"] and fields.has("refusal"):
        message["content"] = fields.text("refusal")
    calls = [_call(one) for one in fields.objects("tool_calls")]
    legacy = fields.object("function_call")
    if legacy is not None and not calls:
        function = {"name": legacy.text("name"), "arguments": legacy.text("arguments", "")}
        calls = [{"id": f"call_{function['name']}", "type": "function", "function": function}]
    if calls:
        message["tool_calls"] = calls
    return message


def _thoughts(fields: Fields) -> str:
    """Thoughts among the parts of a content, as some clients keep them."""
    if not isinstance(fields.any("content"), list):
        return ""
    parts = fields.any("content")
    texts = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _call(fields: Fields) -> dict[str, Any]:
    """A call in the history; its arguments are a text."""
    kind = fields.text("type", "function")
    if kind != "function":
        raise unsupported(fields.name("type"), f"calls are of functions here, not {kind[:40]!r}")
    function = fields.need("function")
    arguments = function.any("arguments")
    if not isinstance(arguments, dict):
        arguments = function.text("arguments", "")
    name = function.text("name")
    return {
        "id": fields.text("id", ""),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _legacy_result(
    fields: Fields, message: dict[str, Any], before: Sequence[dict[str, Any]]
) -> None:
    """The result of a function, which the older form of messages knows by its name alone."""
    name = fields.text("name")
    message["name"] = name
    for earlier in reversed(before):
        for call in earlier.get("tool_calls", ()):
            if call["function"]["name"] == name:
                message["tool_call_id"] = call["id"]
                return


def read_content(fields: Fields, field: str = "content") -> str:
    """A text, parts of it, or none."""
    value = fields.any(field)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "".join(value)
    texts = []
    for part in fields.objects(field):
        kind = part.text("type")
        if kind == "refusal":
            texts.append(part.text("refusal"))
        elif kind in _TEXTS:
            texts.append(part.text("text"))
        elif kind in ("thinking", "redacted_thinking") and fields.any("role") == "assistant":
            continue  # no part of what was said
        else:
            raise unsupported(part.name("type"), f"this model reads text, no {kind[:40]!r}")
    return "".join(texts)
