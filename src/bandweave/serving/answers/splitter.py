"""Splitter: an answer's text into thoughts, calls of tools, and what is said.

The text may come in any pieces: what is found is the same, and nothing is held back but what may
still be something else.
"""

from __future__ import annotations

from bandweave.serving.answers.answer import Answer
from bandweave.serving.answers.channels import channel_messages
from bandweave.serving.answers.code_calls import code_calls
from bandweave.serving.answers.events import Event, TokenInfo
from bandweave.serving.answers.forms import FORMS, ChannelForm, CodeForm, HeadedForm, JsonForm
from bandweave.serving.answers.headed_calls import headed_calls
from bandweave.serving.answers.json_calls import json_calls
from bandweave.serving.answers.marks import NO_MARKS, Marks
from bandweave.serving.answers.reader import Reader, Reading
from bandweave.serving.answers.sink import Sink
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.answers.tagged_calls import tagged_calls


class Splitter:
    """Fed an answer's text piece by piece. ``over``: the answer has all the calls that it may have,
    and what comes behind is not read."""

    def __init__(self, choice: int, syntax: Syntax, marks: Marks = NO_MARKS) -> None:
        """``marks``: which stand in the text for what is never shown."""
        self.over = False
        self._sink = Sink(choice)
        self._sink.thinking = syntax.thinks
        self._reader = Reader()
        self._parser = _whole(
            Answer(reader=self._reader, sink=self._sink, syntax=syntax, mark=marks)
        )

    @property
    def calls(self) -> int:
        """Of tools, so far."""
        return self._sink.calls

    @property
    def thought_tokens(self) -> int:
        """Those of thoughts, and of what opens and closes them."""
        return self._sink.thought_tokens

    def push(self, text: str, token: TokenInfo | None = None) -> list[Event]:
        """What a token adds: its text, or text that was held back before it. None for one that is
        no part of what is said, as an end token."""
        if token is not None:
            self._sink.token(token)
        self._read(text)
        return self._sink.take()

    def flush(self, text: str) -> list[Event]:
        """The rest of the text; nothing follows."""
        self._reader.ended = True
        self._read(text)
        return self._sink.end()

    def _read(self, text: str) -> None:
        if self.over:
            return
        self._reader.feed(text)
        try:
            next(self._parser)
        except StopIteration:
            self.over = True


def _whole(a: Answer) -> Reading[None]:
    """An answer from its start."""
    form = FORMS.get(a.syntax.tools)
    if isinstance(form, ChannelForm):
        yield from channel_messages(a, form)
        return
    has_thoughts = bool(a.syntax.think_open) and not a.syntax.speaks
    if has_thoughts:
        yield from _thoughts(a)
    if isinstance(form, JsonForm):
        yield from json_calls(a, form)
    elif isinstance(form, HeadedForm):
        yield from headed_calls(a, form)
    elif isinstance(form, CodeForm):
        yield from code_calls(a, form)
    elif form is not None:
        yield from tagged_calls(a, form)
    else:
        yield from a.reader.until((), a.sink.text if has_thoughts else a.sink.raw)


def _thoughts(a: Answer) -> Reading[None]:
    """Thoughts, if an answer begins with them."""
    reader, sink = a.reader, a.sink
    opens, closes = a.mark(a.syntax.think_open), a.mark(a.syntax.think_close)
    reader.keep()
    yield from reader.spaces()
    if not (yield from reader.take(opens)) and not a.syntax.thinks:
        reader.back()
        return
    reader.drop()
    sink.think()
    if (yield from reader.until((closes,), sink.thought)):
        sink.speak()
