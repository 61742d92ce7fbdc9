"""Messages of OpenAI's chats, and what comes with them, to a conversation."""

from __future__ import annotations

from typing import Any

from bandweave.serving.answers.conversation import Conversation
from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def read_conversation(fields: Fields) -> Conversation:
    """``ApiError`` for what is no conversation."""
    messages = [_message(one) for one in fields.objects("messages")]
    if not messages:
        raise bad("messages is empty; give at least one", "messages")
    return Conversation(messages=messages)


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.one_of("role", _ROLES)
    return {
        "role": "system" if role == "developer" else role,
        "content": _content(fields),
    }


def _content(fields: Fields) -> str:
    """A text, parts of it, or none."""
    value = fields.any("content")
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    texts = []
    for part in fields.objects("content"):
        kind = part.text("type")
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise unsupported(part.name("type"), f"this model reads text, no {kind[:40]!r}")
        texts.append(part.text("refusal" if kind == "refusal" else "text"))
    return "".join(texts)
