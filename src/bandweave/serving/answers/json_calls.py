"""Calls of tools that are JSON objects.

What turns out to be no call is said as it stands: what opens it first, for a call may stand behind.
"""

from __future__ import annotations

import json

from bandweave.serving.answers.answer import TOOL, Answer
from bandweave.serving.answers.forms import JsonForm
from bandweave.serving.answers.json_reading import (
    UnfinishedJson,
    WrongJson,
    captured,
    string,
    value,
    written,
)
from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Reading
from bandweave.serving.answers.sink import Call


def json_calls(a: Answer, form: JsonForm) -> Reading[None]:
    reader = a.reader
    begins, closes = a.mark(form.open), a.mark(form.close)
    if form.bare:
        yield from _bare(a, form, begins)
        if not a.enough:
            yield from reader.until((), a.sink.text)
        return
    while not a.enough and (yield from reader.until((begins,), a.sink.text)):
        if not (yield from _objects(a, form, closes)):
            a.sink.text(begins)


def _objects(a: Answer, form: JsonForm, closes: str) -> Reading[bool]:
    """The calls behind what opens them; whether there are any. The rest of a list that goes
    wrong is said."""
    reader, found = a.reader, False
    reader.keep()
    yield from reader.spaces()
    listed = form.listed and (yield from reader.take("["))
    yield from reader.spaces()
    while True:
        made = yield from _object(a, form, closes)
        if not made:
            reader.back()
            return found
        found = True
        reader.drop()
        reader.keep()
        yield from reader.spaces()
        if a.enough:
            break
        if not (yield from reader.take(",")) and not (yield from reader.follows("{")):
            break
        yield from reader.spaces()
    if listed:
        yield from reader.take("]")
        yield from reader.spaces()
    yield from reader.take(closes)
    reader.drop()
    return True


def _bare(a: Answer, form: JsonForm, begins: str) -> Reading[None]:
    """Calls that an answer begins with, if it begins with any."""
    reader = a.reader
    while not a.enough:
        reader.keep()
        yield from reader.spaces()
        separated = a.sink.calls == 0 or (yield from reader.take(";"))
        yield from reader.spaces()
        yield from reader.take(begins)
        yield from reader.spaces()
        if (
            not (separated or (yield from reader.next()) == "{")
            or (yield from reader.next()) != "{"
            or not (yield from _object(a, form, ""))
        ):
            reader.back()
            return
        reader.drop()


def _object(a: Answer, form: JsonForm, closes: str) -> Reading[bool]:
    """A call that is an object; whether it is one. Where it is none, nothing is taken."""
    reader, call = a.reader, a.call()
    reader.keep()
    try:
        yield from _fields(a, form, call)
    except UnfinishedJson:
        if not call.told and not call.named:
            reader.back()
            return False
    except WrongJson:
        if not call.told:
            reader.back()
            return False
        # Its name is known to the client: the rest is the model's, as it is.
        ends = (closes,) if closes else ()
        end = yield from reader.until(ends, lambda text: call.arguments(shown(text)))
        reader.at -= len(end)
    reader.drop()
    call.tell()
    return True


def _fields(a: Answer, form: JsonForm, call: Call) -> Reading[None]:
    """An object with a name and arguments, in any order. ``WrongJson`` where it is none."""
    reader = a.reader
    if not (yield from reader.take("{")):
        raise WrongJson if (yield from reader.more()) else UnfinishedJson
    early: list[str] = []
    wanted = {form.arguments, "arguments", "parameters"}
    seen = False
    yield from reader.spaces()
    if (yield from reader.take("}")):
        raise WrongJson
    while True:
        yield from reader.spaces()
        key = yield from captured(reader)
        yield from reader.spaces()
        if not (yield from reader.take(":")):
            raise WrongJson if (yield from reader.more()) else UnfinishedJson
        yield from reader.spaces()
        if key in (form.name, "name") and not call.named:
            name = yield from captured(reader)
            if not TOOL.fullmatch(name) or (
                form.bare and a.syntax.schemas and name not in a.syntax.schemas
            ):
                raise WrongJson
            call.name(name)
            if early:
                call.arguments("".join(early))
        elif key in wanted and not seen:
            seen = True
            yield from _arguments(a, call, early)
        else:
            yield from value(reader, lambda text: None)
        yield from reader.spaces()
        if (yield from reader.take("}")):
            break
        if not (yield from reader.take(",")):
            raise WrongJson if (yield from reader.more()) else UnfinishedJson
    if not call.named:
        raise WrongJson
    if not seen:
        call.arguments("{}")


def _arguments(a: Answer, call: Call, early: list[str]) -> Reading[None]:
    """The arguments: an object, a text that is one, or null for none. They may come before
    the name."""
    reader = a.reader
    put = call.arguments if call.named else early.append
    first = yield from reader.next()
    if first == "{":
        yield from value(reader, put)
        return
    pieces: list[str] = []
    yield from (string if first == '"' else value)(reader, pieces.append)
    found = json.loads("".join(pieces))
    if isinstance(found, str):
        try:
            inner = json.loads(found, strict=False) if found.strip() else None
            text = written(inner)
        except (ValueError, RecursionError):
            raise WrongJson from None
        if isinstance(inner, dict):
            put(text)
            return
        found = inner
    if found is not None:
        raise WrongJson
    put("{}")
