"""ThoughtLimit: thoughts of at most so many tokens, whatever else holds an answer to its form.

It travels with a request's grammar, before it. When the tokens are used up, the one that closes
thoughts is the only one that may come. Knows no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandweave.generation.grammar import Mask, Matcher

_MARK = "#thoughts "
_LONGEST = 4  # bytes of a character


@dataclass(frozen=True, kw_only=True)
class ThoughtLimit:
    """``most`` tokens between the tokens ``opens`` and ``closes``. ``begun``: the prompt has opened
    them already."""

    most: int
    opens: int
    closes: int
    begun: bool

    def before(self, grammar: str) -> str:
        """A grammar, empty for none, with this limit."""
        return f"{_MARK}{self.most} {self.opens} {self.closes} {int(self.begun)}\n{grammar}"


def split_limit(grammar: str) -> tuple[ThoughtLimit | None, str]:
    """The limit, None where there is none, and the grammar behind it. ``ValueError`` for what is
    no limit."""
    if not grammar.startswith(_MARK):
        return None, grammar
    line, _, rest = grammar.removeprefix(_MARK).partition("\n")
    most, opens, closes, begun = map(int, line.split())
    limit = ThoughtLimit(most=most, opens=opens, closes=closes, begun=bool(begun))
    return limit, rest


class LimitedMatcher:
    """``inner``: what else holds the answer to its form. ``texts``: the bytes of all tokens."""

    def __init__(self, inner: Matcher | None, limit: ThoughtLimit, texts: Sequence[bytes]) -> None:
        if not 0 <= limit.closes < len(texts):
            raise ValueError(f"no token {limit.closes} can close thoughts; there are {len(texts)}")
        self._inner, self._limit, self._texts = inner, limit, texts
        self._thinks = limit.begun
        self._used = 0
        self._tail = b""  # the last bytes of the thoughts

    def allowed(self) -> Mask:
        closes = self._limit.closes
        size = len(self._texts)
        found = np.ones(size, np.bool_) if self._inner is None else self._inner.allowed()
        over = self._thinks and self._used >= self._limit.most and _is_whole(self._tail)
        if over and found[closes]:
            found = np.zeros(size, np.bool_)
            found[closes] = True
        return found

    def accept(self, token: int) -> None:
        if self._inner is not None:
            self._inner.accept(token)
        if token == self._limit.closes:
            self._thinks = False
        elif token == self._limit.opens:
            self._thinks = True
        elif self._thinks:
            self._used += 1
            self._tail = (self._tail + self._texts[token])[-_LONGEST:]


def _is_whole(tail: bytes) -> bool:
    """Whether no character is left unfinished, which another token would complete."""
    for back, byte in enumerate(reversed(tail), 1):
        if byte < 0x80:
            return True
        if byte >= 0xC0:
            return back >= (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return True
