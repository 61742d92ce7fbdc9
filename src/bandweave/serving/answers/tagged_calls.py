"""Calls of tools whose arguments stand between tags, one by one."""

from __future__ import annotations

import json

from bandweave.serving.answers.answer import TOOL, Answer
from bandweave.serving.answers.forms import TaggedForm
from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Put, Reading
from bandweave.serving.answers.tool_schemas import as_json, is_text, parameter


def tagged_calls(a: Answer, form: TaggedForm) -> Reading[None]:
    reader, mark = a.reader, a.mark
    while not a.enough and (yield from reader.until((mark(form.open),), a.sink.text)):
        if not (yield from _call(a, form)):
            a.sink.text(mark(form.open))
            continue
        while form.call_open and not a.enough:
            if not (yield from _call(a, form)):
                break
        yield from reader.spaces()
        yield from reader.take(mark(form.close))


def _call(a: Answer, form: TaggedForm) -> Reading[bool]:
    """A call; whether it is one. Where it is none, nothing is taken."""
    reader = a.reader
    reader.keep()
    name = yield from _name(a, form)
    if not name:
        reader.back()
        return False
    reader.drop()
    put = a.sink.begin(name)
    put("{")
    first = True
    while True:
        yield from reader.spaces()
        if not (yield from reader.take(a.mark(form.key_open))):
            break
        if not (yield from _argument(a, form, name, "" if first else ", ", put)):
            return True
        first = False
    put("}")
    yield from reader.take(a.mark(form.call_close))
    return True


def _name(a: Answer, form: TaggedForm) -> Reading[str]:
    """A tool's name and what closes it; empty where there is none."""
    reader, mark = a.reader, a.mark
    yield from reader.spaces()
    if form.call_open and not (yield from reader.take(mark(form.call_open))):
        return ""
    pieces: list[str] = []
    ends = tuple(map(mark, (form.name_close, form.key_open, form.close)))
    end = yield from reader.until(ends, pieces.append)
    name = "".join(pieces).strip()
    if not end or not TOOL.fullmatch(name):
        return ""
    # Without a tag of its own any word behind what opens a call may be a name.
    if not form.call_open and a.syntax.schemas and name not in a.syntax.schemas:
        return ""
    if end != mark(form.name_close):
        reader.at -= len(end)
    return name


def _argument(a: Answer, form: TaggedForm, tool: str, before: str, put: Put) -> Reading[bool]:
    """A key and its value; whether the value is complete."""
    reader, mark = a.reader, a.mark
    keys: list[str] = []
    if not (yield from reader.until((mark(form.key_close),), keys.append)):
        return False
    yield from reader.spaces()
    yield from reader.take(mark(form.value_open))
    key = shown("".join(keys)).strip()
    schema = parameter(a.syntax.schemas, tool, key)
    text_said = is_text(schema)
    if form.typed:
        kinds: list[str] = []
        if not (yield from reader.until(('">',), kinds.append)):
            return False
        text_said = "".join(kinds) == "true"
    ends = (mark(form.value_close),)
    put(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
    if text_said:
        text = _Text(put, padded=form.padded)
        if not (yield from reader.until(ends, text.put)):
            return False
        text.end()
        return True
    pieces: list[str] = []
    if not (yield from reader.until(ends, pieces.append)):
        return False
    whole = shown("".join(pieces))
    if form.padded:
        whole = whole.removeprefix("\n").removesuffix("\n")
    put(as_json(whole, schema))
    return True


class _Text:
    """A text that becomes a JSON string as it comes. ``padded``: a line break at its start and at
    its end is none of it."""

    def __init__(self, put: Put, *, padded: bool) -> None:
        self._put, self._padded, self._held, self._first = put, padded, "", True
        put('"')

    def put(self, text: str) -> None:
        text = self._held + shown(text)
        if not text:
            return
        if self._padded and self._first:
            text = text.removeprefix("\n")
        self._first = False
        kept = text.removesuffix("\n") if self._padded else text
        self._held = text[len(kept) :]
        if kept:
            self._put(json.dumps(kept, ensure_ascii=False)[1:-1])

    def end(self) -> None:
        self._put('"')
