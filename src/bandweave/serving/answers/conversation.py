"""Conversation: a chat as every protocol puts it, and the ask that it becomes.

Protocols turn their own messages into these; nothing here knows any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bandweave.serving.answers.served import Served
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.errors import bad, too_long
from bandweave.text.files import TextError


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an answer must look like: any ``json`` object, JSON of a ``schema``, a ``regex``, one of
    some ``choice`` texts (``value`` is a list), or a ``lark`` grammar. ``value``: the schema (an
    object, true or false), pattern, texts or grammar; None for ``json``."""

    kind: Literal["json", "schema", "regex", "choice", "lark"]
    value: Any = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """``messages`` as chat templates know them: ``role`` (system, user, assistant, tool) and
    ``content`` (a text); an assistant's may have ``reasoning_content`` and ``tool_calls``
    (``{"id", "type": "function", "function": {"name", "arguments"}}``, the arguments an object), a
    tool's has ``tool_call_id`` and may have ``name``.

    ``tools``: ``{"type": "function", "function": {"name", "description", "parameters"}}`` each.
    ``choice``: ``"none"``, ``"auto"``, ``"required"``, or with ``named`` that tool; not
    ``parallel``: at most one call. ``form`` of what is said. ``thinks``: whether the model shall
    think first, None for its own way; ``effort``: how much, for templates that know it.
    ``variables``: what else the template shall know. ``continues``: the answer goes on with the
    last message, which is the assistant's.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: Literal["none", "auto", "required"] = "auto"
    named: str = ""
    parallel: bool = True
    form: Form | None = None
    thinks: bool | None = None
    effort: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A conversation's prompt, and how its answer is held and read: see ``Ask``."""

    tokens: tuple[int, ...]
    grammar: str
    syntax: Syntax


async def prepare(served: Served, conversation: Conversation) -> Prepared:
    """Renders and encodes in another thread. ``ApiError`` for what the model's template refuses,
    a form that cannot be kept to, and a prompt that is too long."""
    return await asyncio.to_thread(_prepare, served, conversation)


def _prepare(served: Served, conversation: Conversation) -> Prepared:
    if served.template is None:
        raise bad("this model has no chat template; ask for a completion of a text", "messages")
    try:
        text = served.template.render(conversation.messages, variables=conversation.variables)
        tokens = tuple(served.tokenizer.encode(text, special_tokens=False))
    except TextError as error:
        raise bad(str(error), "messages") from error
    if len(tokens) >= served.context:
        raise too_long(len(tokens), served.context)
    return Prepared(tokens=tokens, grammar="", syntax=served.syntax)
