"""Messages of a chat, and what comes with them, to a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.syntax import PLAIN, Syntax
from bandweave.serving.http.errors import bad, too_long, unsupported
from bandweave.serving.http.fields import Fields
from bandweave.serving.http.served import Served
from bandweave.text.files import TextError

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A prompt, and how its answer is to be read."""

    tokens: tuple[int, ...]
    grammar: str = ""
    syntax: Syntax = PLAIN


async def read_conversation(fields: Fields, served: Served) -> Conversation:
    """``ApiError`` for what the model's template refuses."""
    messages = [_message(one) for one in fields.objects("messages")]
    if not messages:
        raise bad("messages is empty; give at least one", "messages")
    tokens = await asyncio.to_thread(encode, served, messages)
    return Conversation(tokens=tokens)


def encode(
    served: Served,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """The tokens of a conversation, up to where the answer starts; ``ApiError`` where the template
    refuses it, or it is too long."""
    if served.template is None:
        raise bad("this model has no chat template; use /v1/completions", "messages")
    try:
        text = served.template.render(messages, tools=tools, variables=variables)
        tokens = tuple(served.tokenizer.encode(text, special_tokens=False))
    except TextError as error:
        raise bad(str(error), "messages") from error
    if len(tokens) >= served.context:
        raise too_long(len(tokens), served.context)
    return tokens


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
