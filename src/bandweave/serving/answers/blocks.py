"""Blocks: an answer as thoughts, texts and calls of tools, one after the other.

Protocols that number the parts of an answer make both of it: what they stream, and the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Read,
    Text,
    Thought,
    TokenInfo,
)
from bandweave.serving.answers.events import Event as AnswerEvent
from bandweave.serving.errors import failed, unavailable

Kind = Literal["thought", "text", "call"]


@dataclass(kw_only=True)
class Block:
    """The ``index``-th part of an answer, from 0. A call has ``id`` and ``name``, and its text is
    its arguments. ``tokens``: those of a text or thought."""

    index: int
    kind: Kind
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    tokens: list[TokenInfo] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Opened:
    """A block begins; the one before has been closed."""

    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """A block has grown by ``text`` and ``tokens``; either may be empty."""

    block: Block
    text: str
    tokens: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """A block is complete."""

    block: Block


Change = Opened | Grown | Closed


class Blocks:
    """Fed one answer's events. ``all``: the blocks so far, of which none but the last grows.
    ``end`` is the answer's, None until it has come."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self.end: End | None = None
        self._open: Block | None = None
        # Of texts and thoughts that have tokens but no character yet.
        self._early: dict[Kind, list[TokenInfo]] = {"text": [], "thought": []}

    def push(self, event: AnswerEvent) -> list[Change]:
        """What an event changes. ``End`` closes the last block."""
        if isinstance(event, Read):
            return []
        if isinstance(event, End):
            self.end = event
            return self._close()
        if isinstance(event, CallBegun):
            return self._begin("call", event.id, event.name)
        if isinstance(event, CallArguments):
            return self._grow(event.text, ())
        return self._say(event)

    def ended(self) -> End:
        """How the answer ended. ``ApiError`` where it did not end well, for protocols have no word
        for that."""
        assert self.end is not None
        if self.end.reason == "error":
            raise failed(self.end.error or "the model's numbers are not finite")
        if self.end.reason == "cancelled":
            raise unavailable("the answer was cancelled", 1.0)
        return self.end

    def _say(self, event: Text | Thought) -> list[Change]:
        kind: Kind = "text" if isinstance(event, Text) else "thought"
        changes: list[Change] = []
        tokens = event.tokens
        if self._open is None or self._open.kind != kind:
            if not event.text:
                self._early[kind] += tokens
                return []
            changes = self._begin(kind)
            tokens = (*self._early[kind], *tokens)
            self._early[kind].clear()
        return changes + self._grow(event.text, tokens)

    def _begin(self, kind: Kind, id: str = "", name: str = "") -> list[Change]:
        changes = self._close()
        self._open = Block(index=len(self.all), kind=kind, id=id, name=name)
        self.all.append(self._open)
        return [*changes, Opened(self._open)]

    def _grow(self, text: str, tokens: tuple[TokenInfo, ...]) -> list[Change]:
        assert self._open is not None
        if not text and not tokens:
            return []
        self._open.pieces.append(text)
        self._open.tokens += tokens
        return [Grown(self._open, text, tokens)]

    def _close(self) -> list[Change]:
        block, self._open = self._open, None
        return [] if block is None else [Closed(block)]
