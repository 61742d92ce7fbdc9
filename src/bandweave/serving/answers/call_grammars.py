"""Grammars of calls of tools, one for each kind of form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.forms import CodeForm, Form, HeadedForm, JsonForm, TaggedForm
from bandweave.serving.answers.grammar_text import GrammarText, any_of, quoted
from bandweave.serving.answers.tool_schemas import is_text, parameter

_KEY = r"/[^<>\"\n=]{1,64}/"


@dataclass(frozen=True, kw_only=True)
class CallRules:
    """``whole``: calls and nothing else. ``opening``: by what they are known in a text, and what
    comes ``behind`` it."""

    whole: str
    opening: str
    behind: str


def call_rules(text: GrammarText, form: Form, tools: Mapping[str, Any], most: int) -> CallRules:
    """Calls of ``tools``, their parameters' schemas by their names."""
    if isinstance(form, JsonForm):
        return _json(text, form, tools, most)
    if isinstance(form, HeadedForm):
        return _headed(text, form, tools, most)
    if isinstance(form, CodeForm):
        return _code(text, form, tools, most)
    assert isinstance(form, TaggedForm)
    return _tagged(text, form, tools, most)


def _several(text: GrammarText, one: str, between: str, most: int) -> str:
    """One or more, with what stands between two of them."""
    if most == 1:
        return one
    bound = "*" if not most else f"{{0,{most - 1}}}"
    return f"{one} ({text.literal(between)} {one}){bound}" if between else f"({one})+"


def _json(text: GrammarText, form: JsonForm, tools: Mapping[str, Any], most: int) -> CallRules:
    calls = [
        f"{text.literal('{' + quoted(form.name) + ': ' + quoted(name))} "
        f"{text.literal(', ' + quoted(form.arguments) + ': ')} {text.json(schema)} "
        f"{text.literal('}')}"
        for name, schema in tools.items()
    ]
    call = text.rule(any_of(calls))
    if form.bare:
        whole = _several(text, call, form.between, most)
        return CallRules(whole=whole, opening=form.open, behind=whole)
    if form.listed:
        listed = _several(text, call, ", ", most)
        behind = f"{text.literal('[')} {listed} {text.literal(']' + form.close)}"
        return CallRules(
            whole=f"{text.literal(form.open)} {behind}", opening=form.open, behind=behind
        )
    behind = f"{_maybe(text, form.space)}{call} {text.literal(form.space + form.close)}"
    block = text.rule(f"{text.literal(form.open)} {behind}")
    return CallRules(
        whole=_several(text, block, form.between, most), opening=form.open, behind=behind
    )


def _headed(text: GrammarText, form: HeadedForm, tools: Mapping[str, Any], most: int) -> CallRules:
    def head(name: str) -> str:
        written = form.before_name + name
        if form.numbered:
            number, behind = text.rule("/[0-9]{1,3}/"), text.literal(form.args_open)
            return f"{text.literal(written + form.behind_name)} {number} {behind}"
        return text.literal(written + ("" if form.optional else form.behind_name) + form.args_open)

    calls = [f"{head(name)} {text.json(schema)}" for name, schema in tools.items()]
    close = form.args_close + form.call_close
    tail = f"{any_of(calls)} {text.literal(close)}" if close else any_of(calls)
    call = text.rule(f"{text.literal(form.call_open)} {tail}")
    if not form.open:
        whole = _several(text, call, form.between, most)
        return CallRules(whole=whole, opening=form.call_open, behind=text.rule(tail))
    behind = f"{_several(text, call, form.between, most)} {text.literal(form.close)}"
    return CallRules(whole=f"{text.literal(form.open)} {behind}", opening=form.open, behind=behind)


def _tagged(text: GrammarText, form: TaggedForm, tools: Mapping[str, Any], most: int) -> CallRules:
    calls = [
        f"{text.literal(form.call_open + name + form.name_close)} "
        f"{_arguments(text, form, name, schema)} "
        f"{text.literal(form.call_close + (form.space if form.call_close else '') + form.close)}"
        for name, schema in tools.items()
    ]
    lead = _maybe(text, form.space) if form.call_open else ""
    behind = f"{lead}{text.rule(any_of(calls))}"
    block = text.rule(f"{text.literal(form.open)} {behind}")
    return CallRules(
        whole=_several(text, block, form.space, most), opening=form.open, behind=behind
    )


def _arguments(text: GrammarText, form: TaggedForm, tool: str, schema: Mapping[str, Any]) -> str:
    """The arguments, in the order of the schema; any, where it names none."""
    properties = schema.get("properties")
    lead = "" if form.name_close == form.space else _maybe(text, form.space)
    if not isinstance(properties, Mapping):
        if schema.get("additionalProperties") is False:
            return lead
        key = f"{text.literal(form.key_open)} {text.rule(_KEY)} {_between(text, form, True)}"
        return f"{lead}({key} {_text(text, form)} {_maybe(text, form.space)})*"
    required = schema.get("required")
    parts = [lead]
    for name in properties:
        found = parameter({tool: schema}, tool, name)
        head = f"{text.literal(form.key_open + name)} {_between(text, form, is_text(found))}"
        if is_text(found) and not (isinstance(found, Mapping) and {"enum", "const"} & found.keys()):
            value = _text(text, form)
        else:
            value = f"{_value(text, form, found, schema)} {text.literal(form.value_close)}"
        one = f"{head} {value} {_maybe(text, form.space)}"
        is_required = isinstance(required, list) and name in required
        parts.append(one if is_required else f"({one})?")
    return " ".join(parts)


def _between(text: GrammarText, form: TaggedForm, is_text: bool) -> str:
    """What stands between a key and its value."""
    if form.typed:
        return text.literal(f'{form.key_close}{"true" if is_text else "false"}">')
    space = form.space if form.value_open or form.padded else ""
    return text.literal(form.key_close + space + form.value_open)


def _text(text: GrammarText, form: TaggedForm) -> str:
    return text.until(form.value_close)


def _value(text: GrammarText, form: TaggedForm, schema: Any, root: Mapping[str, Any]) -> str:
    """A value that is no free text: words of a list as they are, all else as JSON."""
    pad = _maybe(text, "\n") if form.padded else ""
    if isinstance(schema, Mapping) and is_text(schema):
        words = schema.get("enum", [schema.get("const")])
        if isinstance(words, list) and all(isinstance(one, str) and one for one in words):
            return f"{any_of(map(quoted, words))} {pad}"
    return f"{text.json(_rooted(schema, root))} {pad}"


def _code(text: GrammarText, form: CodeForm, tools: Mapping[str, Any], most: int) -> CallRules:
    """As code: values are JSON, which readers take, but for strings with quotes of their own."""
    calls = []
    for name, schema in tools.items():
        head, tail = ("call:", "}") if form.quote else ("", ")")
        begins = text.literal(head + name + ("{" if form.quote else "("))
        calls.append(f"{begins} {_keywords(text, form, name, schema)} {text.literal(tail)}")
    call = text.rule(any_of(calls))
    if form.quote:
        behind = f"{call} {text.literal(form.close)}"
        block = text.rule(f"{text.literal(form.open)} {behind}")
        return CallRules(whole=_several(text, block, "", most), opening=form.open, behind=behind)
    listed = f"{text.literal('[')} {_several(text, call, ', ', most)} {text.literal(']')}"
    if form.bare:
        return CallRules(whole=listed, opening=form.open, behind=listed)
    behind = f"{listed} {text.literal(form.close)}"
    return CallRules(whole=f"{text.literal(form.open)} {behind}", opening=form.open, behind=behind)


def _keywords(text: GrammarText, form: CodeForm, tool: str, schema: Mapping[str, Any]) -> str:
    """The arguments by their names, in the order of the schema, with commas between them."""
    equals, comma = (":", ",") if form.quote else ("=", ", ")
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        if schema.get("additionalProperties") is False:
            return ""
        one = text.rule(f"/[A-Za-z_][A-Za-z0-9_]*/ {text.literal(equals)} {text.json({})}")
        return f"({one} ({text.literal(comma)} {one})*)?"
    required = schema.get("required")
    first, later = "", ""  # what may come where nothing came before, and where something did
    for name in reversed(properties):
        found = parameter({tool: schema}, tool, name)
        quoted_text = form.quote and is_text(found) and not {"enum", "const"} & set(found)
        value = (
            f"{text.literal(form.quote)} {text.until(form.quote)}"
            if quoted_text
            else text.json(_rooted(found, schema))
        )
        one = text.rule(f"{text.literal(name + equals)} {value}")
        if isinstance(required, list) and name in required:
            first, later = f"{one} {later}", f"{text.literal(comma)} {one} {later}"
        else:
            first = f"({one} {later} | {first})" if first else f"({one} {later})?"
            later = f"({text.literal(comma)} {one})? {later}"
        first, later = _named(text, first), _named(text, later)
    return first


def _named(text: GrammarText, body: str) -> str:
    """A rule of its own, so that what is used twice is written once."""
    return text.rule(body) if body.strip() else ""


def _rooted(schema: Any, root: Mapping[str, Any]) -> Any:
    """A part of a schema, with the definitions that it may refer to."""
    if not isinstance(schema, Mapping):
        return {} if schema is None else schema
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema}


def _maybe(text: GrammarText, literal: str) -> str:
    return f"{text.literal(literal)} " if literal else ""
