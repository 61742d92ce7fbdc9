"""Calls of tools that are a head with the name, and arguments as JSON."""

from __future__ import annotations

from bandweave.serving.answers.answer import TOOL, Answer
from bandweave.serving.answers.forms import HeadedForm
from bandweave.serving.answers.json_reading import UnfinishedJson, WrongJson, value
from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Reading


def headed_calls(a: Answer, form: HeadedForm) -> Reading[None]:
    reader, mark = a.reader, a.mark
    opens = tuple(mark(one) for one in (form.open, form.call_open) if one)
    while not a.enough and (found := (yield from reader.until(opens, a.sink.text))):
        if found == mark(form.call_open):
            if not (yield from _headed_call(a, form)):
                a.sink.text(found)
            continue
        yield from reader.spaces()
        first = True
        while not a.enough and (yield from reader.take(mark(form.call_open))):
            if not (yield from _headed_call(a, form)):
                a.sink.text((found if first else "") + mark(form.call_open))
                break
            first = False
            yield from reader.spaces()
        yield from reader.take(mark(form.close))


def _headed_call(a: Answer, form: HeadedForm) -> Reading[bool]:
    """A call behind what opens it; whether it is one."""
    reader, call, mark = a.reader, a.call(), a.mark
    reader.keep()
    heads: list[str] = []
    closes = mark(form.call_close)
    found = yield from reader.until(
        tuple(one for one in (mark(form.args_open), closes) if one), heads.append
    )
    head = "".join(heads).strip().removeprefix(mark(form.before_name))
    if form.behind_name:
        head = head.partition(mark(form.behind_name))[0]
    name = shown(head).strip()
    if found != mark(form.args_open) or not TOOL.fullmatch(name):
        reader.back()
        return False
    call.name(name)
    try:
        yield from reader.spaces()
        if closes and (yield from reader.follows(closes)):
            call.arguments("{}")
        elif (yield from reader.next()) not in ("{", ""):
            raise WrongJson
        else:
            yield from value(reader, call.arguments)
    except UnfinishedJson:
        pass
    except WrongJson:
        if not call.told:
            reader.back()
            return False
        rest = (closes,) if closes else ()
        end = yield from reader.until(rest, lambda text: call.arguments(shown(text)))
        reader.at -= len(end)
    reader.drop()
    call.tell()
    if closes:
        ending = mark(form.args_close).strip()
        yield from reader.spaces()
        yield from reader.take(ending)
        yield from reader.spaces()
        yield from reader.take(closes)
    return True
