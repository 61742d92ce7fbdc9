"""Conversation: a chat as every protocol puts it, and the ask that it becomes.

Protocols turn their own messages into these; nothing here knows any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bandweave.serving.answers.answer import TOOL
from bandweave.serving.answers.grammars import Form, Wanted, grammar_of, tool_parameters
from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.rendering import render
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.errors import PromptTooLong, bad, too_long
from bandweave.shown import shown
from bandweave.text.files import TextError


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """``messages`` as chat templates know them: ``role`` (system, user, assistant, tool) and
    ``content`` (a text); an assistant's may have ``reasoning_content`` and ``tool_calls``
    (``{"id", "type": "function", "function": {"name", "arguments"}}``, the arguments an object, or
    the text of one), a tool's has ``tool_call_id`` and may have ``name``.

    ``tools``: ``{"type": "function", "function": {"name", "description", "parameters"}}`` each; one
    that is ``strict`` is called by its schema alone. ``choice``: ``"none"``, ``"auto"``,
    ``"required"``, or with ``named`` that tool; not ``parallel``: at most one call. ``form`` of
    what is said. ``thinks``: whether the model shall think first, None for its own way; ``effort``:
    how much, for templates that know it, ``"none"`` for not at all. ``variables``: what else the
    template shall know. ``continues``: the answer goes on with the last message, which is the
    assistant's. ``begins``: the prompt has the start of the answer, as the template writes it.
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
    begins: bool = True


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A conversation's prompt, and how its answer is held and read: see ``Ask``."""

    tokens: tuple[int, ...]
    grammar: str
    syntax: Syntax
    goes_on: bool = False


async def prepare(served: Served, conversation: Conversation) -> Prepared:
    """Renders and encodes in another thread. ``ApiError`` for what the model's template refuses,
    a form that cannot be kept to, and a prompt that is too long."""
    tools = _tools(served, conversation)
    tokens, syntax = await asyncio.to_thread(_encode, served, conversation, tools)
    wanted = _wanted(served, conversation, tools)
    grammar = "" if wanted is None else await hold(served, wanted, syntax)
    return Prepared(tokens=tokens, grammar=grammar, syntax=syntax, goes_on=conversation.continues)


async def hold(served: Served, wanted: Wanted, syntax: Syntax) -> str:
    """The grammar that an answer in a syntax is held by. ``ApiError`` where it cannot be."""
    mark = Marks.of(syntax, served.tokenizer)
    by_form = wanted.form is not None and not wanted.must_call
    await served.answering.grammars.check(
        grammar_of(wanted, syntax, mark, checked=True),
        served.vocab_size,
        wanted.form.field if by_form and wanted.form else "tools",
    )
    return grammar_of(wanted, syntax, mark)


async def count(served: Served, conversation: Conversation) -> int:
    """The tokens of a conversation's prompt, even of one that is too long. ``ApiError`` as
    ``prepare``."""
    try:
        return len((await prepare(served, conversation)).tokens)
    except PromptTooLong as error:
        return error.tokens


def _tools(served: Served, conversation: Conversation) -> Sequence[Mapping[str, Any]]:
    """The tools that the model is shown. ``ApiError`` where it can have none."""
    names: set[str] = set()
    for tool in conversation.tools:
        name = tool["function"]["name"]
        if not TOOL.fullmatch(name):
            raise bad(f"tools: {shown(name)} is no name of a function; it must be up to 256 "
                      "letters, digits and _ - . : /", "tools")  # fmt: skip
        if name in names:
            raise bad(f"tools: there are two called {shown(name)}", "tools")
        names.add(name)
    wanted = conversation.named or ("required" if conversation.choice == "required" else "")
    if conversation.named and conversation.named not in names:
        raise bad(f"tool_choice names {shown(conversation.named)}, which is none of the tools",
                  "tool_choice")  # fmt: skip
    if wanted and not names:
        raise bad("tool_choice asks for a call, but there are no tools; give tools", "tool_choice")
    if conversation.choice == "none" and not conversation.named:
        return ()
    if names and not served.syntax.tools:
        raise bad("this model's chat template knows no tools; ask without tools, or serve a model "
                  "that was trained to call them", "tools")  # fmt: skip
    return conversation.tools


def _wanted(
    served: Served, conversation: Conversation, tools: Sequence[Mapping[str, Any]]
) -> Wanted | None:
    """What a grammar must see to; None where the answer is free."""
    must_call = bool(conversation.named) or conversation.choice == "required"
    strict = any(tool["function"].get("strict") is True for tool in tools)
    if not (must_call or strict or conversation.form):
        return None
    named = [one for one in tools if conversation.named in ("", one["function"]["name"])]
    return Wanted(
        form=conversation.form,
        tools=tool_parameters(named),
        must_call=must_call,
        most_calls=_most_calls(served.syntax, conversation),
    )


def _most_calls(syntax: Syntax, conversation: Conversation) -> int:
    return syntax.most_calls if conversation.parallel else 1


def _encode(
    served: Served, conversation: Conversation, tools: Sequence[Mapping[str, Any]]
) -> tuple[tuple[int, ...], Syntax]:
    """The prompt, and the syntax of the answer to it."""
    if served.template is None:
        raise bad("this model has no chat template; ask for a completion of a text", "messages")
    syntax = served.syntax
    try:
        prompt = render(
            served.template,
            syntax,
            conversation.messages,
            tools=tools,
            thinks=conversation.thinks,
            effort=conversation.effort,
            variables=conversation.variables,
            continues=conversation.continues,
            begins=conversation.begins,
        )
        tokens = tuple(served.tokenizer.encode(prompt.text, special_tokens=False))
    except TextError as error:
        raise bad(str(error), "messages") from error
    if len(tokens) >= served.context:
        raise too_long(len(tokens), served.context)
    has_calls = bool(tools) or syntax.tools == "harmony"
    return tokens, replace(
        syntax,
        thinks=prompt.thinks,
        speaks=prompt.speaks,
        tools=syntax.tools if has_calls else "",
        schemas=tool_parameters(tools),
        most_calls=_most_calls(syntax, conversation),
    )
