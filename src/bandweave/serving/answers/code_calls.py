"""Calls of tools that are written as in a program: Python's, or Gemma's own language."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from bandweave.serving.answers.answer import TOOL, Answer
from bandweave.serving.answers.forms import CodeForm
from bandweave.serving.answers.json_reading import written
from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Reading

_MOST_CHARACTERS = 200_000
_WORDS = {"true": True, "false": False, "null": None}
_BARE_START = re.compile(r"\[\s*([A-Za-z_][\w.\-]*)\s*")

Calls = list[tuple[str, str]]
"""Names, and arguments as JSON."""


def code_calls(a: Answer, form: CodeForm) -> Reading[None]:
    reader, sink, begins = a.reader, a.sink, a.mark(form.open)
    if form.bare:
        if (yield from _bare(a, form)) and not a.enough:
            yield from reader.until((), sink.text)
        return
    while not a.enough and (yield from reader.until((begins,), sink.text)):
        pieces: list[str] = []
        end = yield from reader.until((a.mark(form.close),), pieces.append)
        _tell(a, form, begins, "".join(pieces), end)


def _bare(a: Answer, form: CodeForm) -> Reading[bool]:
    """Calls that an answer begins with, if it does; whether more may come."""
    reader = a.reader
    reader.keep()
    yield from reader.spaces()
    opened = yield from reader.take(a.mark(form.open))
    start: list[str] = []
    first = yield from reader.next()
    found = ""
    if first == "[":
        found = yield from reader.until(("(", "]", "{", '"', "\n"), start.append)
    name = _BARE_START.fullmatch("".join(start))
    schemas = a.syntax.schemas
    if found != "(" or name is None or (schemas and not opened and name[1] not in schemas):
        reader.back()
        return True
    reader.drop()
    pieces = ["".join(start), found]
    end = yield from reader.until((a.mark(form.close),), pieces.append)
    _tell(a, form, "", "".join(pieces), end)
    return bool(end)


def _tell(a: Answer, form: CodeForm, begins: str, text: str, end: str) -> None:
    """Calls, or what turns out to be none, as it stands."""
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError
        calls = _gemma(text, a.mark(form.quote)) if form.quote else _python(shown(text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        a.sink.text(begins + text + end)
        return
    for name, arguments in calls:
        if not a.enough:
            a.sink.begin(name)(arguments)


def _python(text: str) -> Calls:
    body = ast.parse(text.strip(), mode="eval").body
    nodes = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
    if not nodes:
        raise ValueError
    return [_python_call(node) for node in nodes]


def _python_call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError
    name = ast.unparse(node.func)
    if not TOOL.fullmatch(name):
        raise ValueError
    arguments = {one.arg: _python_value(one.value) for one in node.keywords}
    if None in arguments:
        raise ValueError
    return name, written(arguments)


def _python_value(node: ast.expr) -> Any:
    """A literal, by JSON's names for some, too."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_python_value(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _python_value(key) for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError
        return dict(zip(keys, map(_python_value, node.values), strict=True))
    found = ast.literal_eval(node)
    if not isinstance(found, (str, int, float, bool, type(None))):
        raise ValueError
    return found


def _gemma(text: str, quote: str) -> Calls:
    """``call:name{key:value}``, whose keys have no quotes and whose strings have their own."""
    name, _, rest = text.strip().removeprefix("call:").partition("{")
    if not text.strip().startswith("call:") or not TOOL.fullmatch(name):
        raise ValueError
    outside = True
    pieces: list[str] = []
    for part in ("{" + rest).split(quote):
        if outside:
            pieces.append(re.sub(r'(?<=[{,])(\s*)([^\s"{}\[\],:]+)(\s*:)', r'\1"\2"\3', part))
        else:
            pieces.append(json.dumps(shown(part), ensure_ascii=False))
        outside = not outside
    arguments = json.loads("".join(pieces))
    if not isinstance(arguments, dict):
        raise ValueError
    return [(name, written(arguments))]
