"""Pages: which KV pages belong to which sequence, and which tokens they hold.

Knows page numbers and tokens; the pages themselves are the executors'. Every node of a model uses
the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bandweave.executors.executor import PAGE_SIZE

_ROOT = 0  # the prefix before any token


@dataclass(eq=False)
class Cached:
    """A sequence's pages and the tokens whose keys and values they hold. ``prefixes`` are the
    pool's names for what its full pages hold, each together with all before it."""

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    prefixes: list[int] = field(default_factory=list)


class PagePool:
    """All pages of a model's cache, each with the number of sequences that use it.

    Sequences that begin alike share the pages that their common beginning fills: a full page is
    never written again. Pages that nobody uses keep what they hold until they are needed, the one
    that was left first going first; the last page of a sequence, which is not full, can then be
    taken over by one that goes on from there.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._users = [0] * num_pages
        self._idle: OrderedDict[int, None] = OrderedDict()
        # By the prefix before it and its own tokens: a full page, and the prefix up to its end.
        self._full: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}
        # By the prefix before them: pages that are not full and that nobody uses, by their tokens.
        self._tails: dict[int, dict[tuple[int, ...], int]] = {}
        self._known: dict[int, tuple[int, tuple[int, ...]]] = {}  # a page's key in either
        self._prefixes = _ROOT

    @property
    def available(self) -> int:
        """Pages that no sequence uses."""
        return len(self._free) + len(self._idle)

    def claim(self, tokens: Sequence[int]) -> Cached:
        """A sequence that is to begin with ``tokens``, with as many of them as some pages hold.

        At least the last token is left to compute: its logits are wanted.
        """
        cached = Cached()
        most = len(tokens) - 1
        while (end := len(cached.tokens) + PAGE_SIZE) <= most:
            known = self._full.get((_last(cached), tuple(tokens[end - PAGE_SIZE : end])))
            if known is None:
                break
            page, prefix = known
            self._use(page)
            cached.pages.append(page)
            cached.prefixes.append(prefix)
            cached.tokens += tokens[end - PAGE_SIZE : end]
        self._claim_tail(cached, tuple(tokens[len(cached.tokens) : most][:PAGE_SIZE]))
        return cached

    def needs(self, cached: Cached, length: int) -> int:
        """Pages that a sequence lacks for ``length`` tokens."""
        return max(0, -(-length // PAGE_SIZE) - len(cached.pages))

    def grow(self, cached: Cached, length: int) -> None:
        """Gives a sequence pages for ``length`` tokens, forgetting what idle ones hold.

        ``MemoryError`` where too few are left; then it gets none.
        """
        wanted = self.needs(cached, length)
        if wanted > self.available:
            raise MemoryError(f"all {self.num_pages} KV pages of {PAGE_SIZE} tokens are in use")
        for _ in range(wanted):
            if not self._free:
                self._free_page(self._idle.popitem(last=False)[0])
            page = self._free.pop()
            self._users[page] = 1
            cached.pages.append(page)

    def publish(self, cached: Cached) -> None:
        """Lets others share the pages that a sequence has filled. Its tokens so far are final."""
        while (end := (len(cached.prefixes) + 1) * PAGE_SIZE) <= len(cached.tokens):
            key = (_last(cached), tuple(cached.tokens[end - PAGE_SIZE : end]))
            known = self._full.get(key)
            if known is None:
                page = cached.pages[len(cached.prefixes)]
                self._prefixes += 1
                known = self._full[key] = (page, self._prefixes)
                self._known[page] = key
            cached.prefixes.append(known[1])

    def release(self, cached: Cached) -> None:
        """A sequence has ended, or gives way; its pages keep what they hold while nobody needs
        them. Pages that hold none of its tokens, but drafts that were wrong, are free at once."""
        self.publish(cached)
        rest = len(cached.tokens) % PAGE_SIZE
        if rest:
            tails = self._tails.setdefault(_last(cached), {})
            tail = tuple(cached.tokens[-rest:])
            if tail not in tails:
                page = cached.pages[len(cached.tokens) // PAGE_SIZE]
                tails[tail] = page
                self._known[page] = (_last(cached), tail)
        for page in reversed(cached.pages):  # what others can share goes last
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._known:
                self._idle[page] = None
            else:
                self._free.append(page)

    def _claim_tail(self, cached: Cached, tokens: tuple[int, ...]) -> None:
        """The page that holds most of the next tokens and nothing else: to be written on."""
        tails = self._tails.get(_last(cached), {})
        for length in range(min(len(tokens), PAGE_SIZE - 1), 0, -1) if tails else ():
            page = tails.get(tokens[:length])
            if page is not None:
                self._forget(page)
                self._use(page)
                cached.pages.append(page)
                cached.tokens += tokens[:length]
                return

    def _use(self, page: int) -> None:
        self._users[page] += 1
        self._idle.pop(page, None)

    def _free_page(self, page: int) -> None:
        self._forget(page)
        self._free.append(page)

    def _forget(self, page: int) -> None:
        """Nobody finds by its tokens any more what a page holds."""
        prefix, tokens = key = self._known.pop(page)
        if len(tokens) == PAGE_SIZE:
            del self._full[key]
        else:
            del self._tails[prefix][tokens]
            if not self._tails[prefix]:
                del self._tails[prefix]


def _last(cached: Cached) -> int:
    """The prefix that a sequence's full pages make."""
    return cached.prefixes[-1] if cached.prefixes else _ROOT
