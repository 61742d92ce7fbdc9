"""Reader: a text that comes piece by piece, for parsers that are written as generators.

A parser yields wherever it needs more text and is resumed when there is more, or when there will be
none. So what it finds does not depend on the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
Put = Callable[[str], None]


class Reader:
    """``text`` from ``at`` on is to be read; what lies before is kept while someone may go back."""

    def __init__(self) -> None:
        self.text, self.at, self.ended = "", 0, False
        self._kept: list[int | None] = []

    def feed(self, text: str) -> None:
        if self.at and not any(place is not None for place in self._kept):
            self.text, self.at = self.text[self.at :], 0
        self.text += text

    def keep(self) -> None:
        """What follows is kept until ``back`` or ``drop``."""
        self._kept.append(self.at)

    def back(self) -> None:
        place = self._kept.pop()
        assert place is not None
        self.at = place

    def drop(self) -> None:
        """What was read since ``keep`` is kept no longer."""
        self._kept.pop()

    def forget(self) -> None:
        """Nobody who has called ``keep`` goes back."""
        self._kept = [None] * len(self._kept)

    def more(self) -> Reading[bool]:
        """Whether there is a character to read; waits for it."""
        while self.at == len(self.text) and not self.ended:
            yield
        return self.at < len(self.text)

    def next(self) -> Reading[str]:
        """The next character, which is not taken; empty at the end."""
        if (yield from self.more()):
            return self.text[self.at]
        return ""

    def follows(self, *literals: str) -> Reading[str]:
        """The one of some literals that follows, which is not taken; empty where none does. None
        of them is the start of another."""
        wanted = [one for one in literals if one]
        size = max(map(len, wanted), default=0)
        while True:
            rest = self.text[self.at : self.at + size]
            for one in wanted:
                if rest.startswith(one):
                    return one
            if self.ended or not any(one.startswith(rest) for one in wanted):
                return ""
            yield

    def take(self, literal: str) -> Reading[bool]:
        """Takes a literal if it follows."""
        if literal and (yield from self.follows(literal)):
            self.at += len(literal)
            return True
        return False

    def spaces(self) -> Reading[str]:
        """Takes white space."""
        found = ""
        while (yield from self.more()) and self.text[self.at].isspace():
            found += self.text[self.at]
            self.at += 1
        return found

    def until(self, literals: Sequence[str], put: Put) -> Reading[str]:
        """Gives what comes before the first of some literals, as soon as it is sure, and takes that
        literal; empty where the text ends before."""
        while True:
            found = [(place, -len(one), one) for one in literals
                     if (place := self.text.find(one, self.at)) >= 0]  # fmt: skip
            place, _, literal = min(found, default=(len(self.text), 0, ""))
            held = place if literal else self._held(literals)
            if held > self.at:
                piece, self.at = self.text[self.at : held], held
                put(piece)
            if literal:
                self.at += len(literal)
                return literal
            if self.ended:
                if self.at < len(self.text):
                    piece, self.at = self.text[self.at :], len(self.text)
                    put(piece)
                return ""
            yield

    def _held(self, literals: Sequence[str]) -> int:
        """Where the end of the text begins that may be the start of a literal."""
        size = max((len(one) for one in literals), default=1)
        for place in range(max(self.at, len(self.text) - size + 1), len(self.text)):
            rest = self.text[place:]
            if any(one.startswith(rest) for one in literals):
                return place
        return len(self.text)
