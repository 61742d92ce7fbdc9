"""Answers that are messages on channels: thoughts, calls, and what is said (gpt-oss)."""

from __future__ import annotations

import re

from bandweave.serving.answers.answer import TOOL, Answer
from bandweave.serving.answers.forms import ChannelForm
from bandweave.serving.answers.json_reading import UnfinishedJson, WrongJson, value
from bandweave.serving.answers.marks import shown
from bandweave.serving.answers.reader import Reading

_TO = re.compile(r"(?:^|\s)to=([^\s<]+)")


def channel_messages(a: Answer, form: ChannelForm) -> Reading[None]:
    """All messages of an answer, up to its end or the last call that is wanted."""
    reader, mark, sink = a.reader, a.mark, a.sink
    begins = tuple(map(mark, (form.start, form.channel)))
    ends = (*map(mark, form.ends), *begins)
    end = (yield from reader.until(ends, sink.text)) if a.syntax.speaks else ""
    while not a.enough:
        if end in begins:
            reader.at -= len(end)  # the next head begins with it
        if not (yield from reader.more()):
            return
        to, channel = yield from _head(a, form, begins)
        if to.startswith(form.to) and TOOL.fullmatch(tool := to.removeprefix(form.to)):
            end = yield from _call(a, tool, ends)
        elif channel == "analysis":
            sink.think()
            end = yield from reader.until(ends, sink.thought)
            if end:
                sink.speak()
        else:
            end = yield from reader.until(ends, sink.text)


def _head(a: Answer, form: ChannelForm, begins: tuple[str, ...]) -> Reading[tuple[str, str]]:
    """Whom a message is to, and its channel; both empty where it has no head."""
    reader, mark = a.reader, a.mark
    channel = mark(form.channel)
    reader.keep()
    opens = yield from reader.follows(*begins, " to=")
    if not opens:
        reader.drop()
        return "", ""
    heads: list[str] = []
    if not (yield from reader.until((mark(form.message),), heads.append)):
        if opens in begins:
            reader.drop()
        else:
            reader.back()  # it was no head
            reader.at += len(opens)
            a.sink.text(opens)
        return "", ""
    reader.drop()
    head = "".join(heads)
    found = _TO.search(head.replace(channel, " ").replace(mark(form.constrain), " "))
    return (
        shown(found[1]) if found else "",
        (shown(head.rpartition(channel)[2]).split() or [""])[0].partition("<")[0],
    )


def _call(a: Answer, tool: str, ends: tuple[str, ...]) -> Reading[str]:
    """A message to a tool, and what ends it; said, where its text is no JSON."""
    reader, call = a.reader, a.call()
    call.name(tool)
    reader.keep()
    try:
        yield from reader.spaces()
        if (yield from reader.follows(*ends)):
            call.arguments("{}")
        else:
            if (yield from reader.next()) not in ("{", ""):
                raise WrongJson
            yield from value(reader, call.arguments)
    except UnfinishedJson:
        pass
    except WrongJson:
        if not call.told:
            reader.back()
            return (yield from reader.until(ends, a.sink.text))
        end = yield from reader.until(ends, lambda text: call.arguments(shown(text)))
        reader.drop()
        return end
    reader.drop()
    call.tell()
    return (yield from reader.until(ends, lambda text: None))
