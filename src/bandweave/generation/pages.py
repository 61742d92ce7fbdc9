"""Pages: which KV pages belong to which sequence, and which tokens they hold.

Knows page numbers and tokens; the pages themselves are the executors'. Every node of a model uses
the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bandweave.executors.executor import PAGE_SIZE


@dataclass(eq=False)
class Cached:
    """A sequence's pages and the tokens whose keys and values they hold."""

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    last_used: int = 0


class PagePool:
    """All pages of a model's cache. Finished sequences stay until their pages are needed.

    Sequences that begin alike share the pages that their common beginning fills: a full page is
    never written again. So two conversations with one system prompt do not take it, and with it
    their history, from each other.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._users = [0] * num_pages  # sequences that hold each page
        self._idle: list[Cached] = []
        self._clock = 0

    def claim(self, tokens: Sequence[int]) -> Cached:
        """A sequence to continue, with as long a prefix of ``tokens`` as an idle one has for it:
        all of one that ends there, else the full pages that both have.

        At least the last token is left to compute: its logits are wanted.
        """
        best, length = None, 0
        for cached in self._idle:
            usable = self._usable(cached, tokens)
            if usable > length:
                best, length = cached, usable
        if best is None:
            return Cached()
        if length == len(best.tokens):
            self._idle.remove(best)
            return Cached(tokens=best.tokens, pages=best.pages)
        shared = best.pages[: length // PAGE_SIZE]
        for page in shared:
            self._users[page] += 1
        return Cached(tokens=best.tokens[:length], pages=shared)

    def grow(self, cached: Cached, length: int) -> None:
        """Gives a sequence pages for ``length`` tokens, forgetting idle ones where it must.

        ``MemoryError`` where all pages are in use.
        """
        while len(cached.pages) * PAGE_SIZE < length:
            while not self._free:
                if not self._idle:
                    raise MemoryError(
                        f"all {self.num_pages} KV pages of {PAGE_SIZE} tokens are in use"
                    )
                oldest = min(self._idle, key=lambda idle: idle.last_used)
                self._idle.remove(oldest)
                self._give_back(oldest.pages)
            page = self._free.pop()
            self._users[page] = 1
            cached.pages.append(page)

    def release(self, cached: Cached) -> None:
        """A sequence has ended; its pages stay for a follow-up while nobody needs them.

        Pages that hold none of its tokens, but drafts that were wrong, are free at once.
        """
        self._clock += 1
        keep = -(-len(cached.tokens) // PAGE_SIZE)
        self._give_back(cached.pages[keep:])
        del cached.pages[keep:]
        cached.last_used = self._clock
        if cached.pages:
            self._idle.append(cached)

    def forget(self) -> None:
        """Frees the pages of all idle sequences: the next prompts are computed from the start."""
        for cached in self._idle:
            self._give_back(cached.pages)
        self._idle = []

    def _usable(self, cached: Cached, tokens: Sequence[int]) -> int:
        """How many of an idle sequence's tokens serve one that is to begin with ``tokens``."""
        common = min(_common(cached.tokens, tokens), len(tokens) - 1)
        return common if common == len(cached.tokens) else common // PAGE_SIZE * PAGE_SIZE

    def _give_back(self, pages: Sequence[int]) -> None:
        """A sequence holds these no longer."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page] == 0:
                self._free.append(page)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        length += 1
    return length
