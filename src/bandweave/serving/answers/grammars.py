"""Grammars of answers: what a client wants of one, in the words of the model's own syntax.

Thoughts come first where the model has any, and are free: a form holds for what is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bandweave.serving.answers.call_grammars import call_rules
from bandweave.serving.answers.forms import FORMS, ChannelForm, CodeForm, JsonForm
from bandweave.serving.answers.grammar_text import GrammarText, any_of, quoted
from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.syntax import Syntax


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an answer must look like: any ``json`` object, JSON of a ``schema``, a ``regex``, one of
    some ``choice`` texts (``value`` is a list), or a ``lark`` grammar. ``value``: the schema (an
    object, true or false), pattern, texts or grammar; None for ``json``. ``field``: the client's
    name of it, for errors."""

    kind: Literal["json", "schema", "regex", "choice", "lark"]
    value: Any = None
    field: str = "response_format"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an answer shall keep to: a ``form``, or calls of ``tools`` (their parameters by their
    names), at most ``most_calls`` (0 for any number). ``must_call``: calls and nothing else."""

    form: Form | None = None
    tools: Mapping[str, Any]
    must_call: bool = False
    most_calls: int = 0


def grammar_of(wanted: Wanted, syntax: Syntax, mark: Marks, *, checked: bool = False) -> str:
    """As ``llguidance`` reads it. ``checked``: for a check without the model's vocabulary, and
    without the thoughts, which would hide that nothing can follow them."""
    text = GrammarText(mark, checked=checked)
    if checked:
        syntax = replace(syntax, think_open="")
    form = FORMS.get(syntax.tools)
    if isinstance(form, ChannelForm):
        return _wrapped(text, wanted, text.whole(_channels(text, wanted, syntax, form, checked)))
    ways: list[str] = []
    if wanted.form is not None and not wanted.must_call:
        ways.append(_said(text, wanted.form))
    if wanted.tools and form is not None:
        calls = call_rules(text, form, wanted.tools, wanted.most_calls)
        if wanted.must_call or wanted.form is not None:
            ways.append(calls.whole)
        elif isinstance(form, (JsonForm, CodeForm)) and form.bare:
            ways += [calls.whole, text.rule(r"/([^\[{<\s](?s:.*))?/")]
        else:
            behind = "*" if wanted.most_calls != 1 else "?"
            ways.append(f"({text.until(calls.opening)} {calls.behind}){behind} {text.anything()}")
    start = f"{_thoughts(text, syntax)} {any_of(ways)}"
    return _wrapped(text, wanted, text.whole(start))


def _thoughts(text: GrammarText, syntax: Syntax) -> str:
    """What comes before a form."""
    if not syntax.think_open or syntax.speaks:
        return ""
    spaces = text.rule(r"/[ \n]{1,4}/")
    close = text.until(syntax.think_close)
    if syntax.thinks:
        return f"{close} {spaces}?"
    return f"({spaces}? {text.literal(syntax.think_open)} {close} {spaces}?)?"


def _channels(
    text: GrammarText, wanted: Wanted, syntax: Syntax, form: ChannelForm, checked: bool
) -> str:
    """An answer of messages. A call ends it, so that there is one at most."""
    said = _said(text, wanted.form) if wanted.form is not None else text.anything()
    if syntax.speaks:
        return said
    if checked:
        ways = [text.json(parameters) for parameters in wanted.tools.values()]
        return any_of(ways if wanted.must_call else [*ways, said])
    channel, message, end = form.channel, form.message, form.ends[0]
    thoughts = (
        f"({text.literal(f'{channel}analysis{message}')} {text.until(end)} "
        f"{text.literal(f'{form.start}assistant')})*"
    )
    ways = [
        f"{text.literal(f'{channel}commentary to={form.to}{name} {form.constrain}json{message}')} "
        f"{text.json(parameters)}"
        for name, parameters in wanted.tools.items()
    ]
    if not wanted.must_call:
        ways.append(f"{text.literal(f'{channel}final{message}')} {said}")
    return f"{thoughts} {any_of(ways)}"


def _said(text: GrammarText, form: Form) -> str:
    value = form.value
    if form.kind == "json":
        return text.json({"type": "object"})
    if form.kind == "schema":
        return text.json(value)
    if form.kind == "regex":
        return text.regex(value)
    if form.kind == "choice":
        return text.rule(any_of(map(quoted, value)))
    return "@form"


def _wrapped(text: GrammarText, wanted: Wanted, whole: str) -> str:
    """A grammar of the client's own stands beside what refers to it."""
    if wanted.form is None or wanted.form.kind != "lark" or wanted.must_call:
        return whole
    grammars = [{"lark_grammar": whole}, {"name": "form", "lark_grammar": wanted.form.value}]
    return json.dumps({"grammars": grammars})


def tool_parameters(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The schemas of tools' parameters by the tools' names; of those without, an empty object."""
    found: dict[str, Any] = {}
    for tool in tools:
        function = tool["function"]
        parameters = function.get("parameters")
        if not parameters:
            parameters = {"type": "object", "properties": {}, "additionalProperties": False}
        elif "type" not in parameters and "$ref" not in parameters:
            parameters = {"type": "object", **parameters}
        found[function["name"]] = parameters
    return found
