"""PageIndex: which tokens pages hold, so that a prompt finds the pages that it begins with.

Knows page numbers and tokens; who uses a page, and whether it may be written, is the pool's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave.executors.executor import PAGE_SIZE

ROOT = 0  # the prefix before any token

Key = tuple[int, tuple[int, ...]]  # the prefix before a page, and the page's own tokens


class PageIndex:
    """Every *prefix* has a number: all that full pages one behind the other hold. ``ROOT`` is that
    of none. A page is found by the prefix before it and by its own tokens; where it is not full it
    is a *tail*."""

    def __init__(self) -> None:
        self._full: dict[Key, tuple[int, int]] = {}  # the page, and the prefix up to its end
        self._tails: dict[int, dict[tuple[int, ...], int]] = {}
        self._keys: dict[int, Key] = {}
        self._behind: dict[int, dict[int, None]] = {}  # the pages behind a prefix
        self._prefixes = ROOT

    def __contains__(self, page: int) -> bool:
        return page in self._keys

    def full(self, before: int, tokens: tuple[int, ...]) -> tuple[int, int] | None:
        """The full page of these tokens, and the prefix up to its end."""
        return self._full.get((before, tokens))

    def add_full(self, page: int, before: int, tokens: tuple[int, ...]) -> int:
        """Such a page has been filled; the prefix up to its end."""
        self._prefixes += 1
        self._full[before, tokens] = (page, self._prefixes)
        self._add(page, (before, tokens))
        return self._prefixes

    def tails(self, before: int) -> dict[tuple[int, ...], int]:
        """The pages behind a prefix that are not full, by their tokens."""
        return self._tails.get(before, {})

    def add_tail(self, page: int, before: int, tokens: tuple[int, ...]) -> None:
        self._tails.setdefault(before, {})[tokens] = page
        self._add(page, (before, tokens))

    def forget(self, page: int) -> tuple[Key, int]:
        """Nobody finds by its tokens any more what a page holds: its key, and the prefix up to its
        end, ``ROOT`` for a tail."""
        before, tokens = key = self._keys.pop(page)
        del self._behind[before][page]
        if not self._behind[before]:
            del self._behind[before]
        if len(tokens) == PAGE_SIZE:
            return key, self._full.pop(key)[1]
        del self._tails[before][tokens]
        if not self._tails[before]:
            del self._tails[before]
        return key, ROOT

    def nearest(
        self, before: int, tokens: Sequence[int], spare: Callable[[int], bool]
    ) -> tuple[int, int] | None:
        """The page behind a prefix that begins with most of ``tokens``, and with how many, where it
        may be written on for them: it is ``spare``, and no more tokens are lost with it, those of
        the pages behind it among them, than are found."""
        best: tuple[int, int] | None = None
        for page in self._behind.get(before, ()):
            own = self._keys[page][1]
            if own[0] != tokens[0] or not spare(page):
                continue
            found = _alike(own, tokens)
            if found > (best[1] if best else 0) and self._lost(page, found) <= found:
                best = (page, found)
        return best

    def _lost(self, page: int, kept: int) -> int:
        """Tokens that are lost with all of a page but its first, as far as it matters."""
        key = self._keys[page]
        lost = len(key[1]) - kept
        if len(key[1]) == PAGE_SIZE:
            for follower in self._behind.get(self._full[key][1], ()):
                if lost > kept:
                    break
                lost += self._lost(follower, 0) if lost + 1 <= kept else 1
        return lost

    def _add(self, page: int, key: Key) -> None:
        self._keys[page] = key
        self._behind.setdefault(key[0], {})[page] = None


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many tokens both begin."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
