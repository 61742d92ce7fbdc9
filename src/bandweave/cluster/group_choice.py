"""Which of several groups of machines, each of which holds the whole model, answers a request.

Pure but for what it remembers: the pages of prompts and answers that each group has read, as
hashes. Knows tokens; knows no nodes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bandweave.executors.executor import PAGE_SIZE

STREAM_TOKENS = 64  # a stream under way delays others about as much as so many tokens to read


@dataclass(frozen=True, kw_only=True)
class GroupLoad:
    """Of one group: whether it ``serves``; prompt tokens that it has still to read; ``streams``
    under way; ``cached`` tokens of the prompt at hand that it has read before."""

    serves: bool
    unread: int
    streams: int
    cached: int


def choose_group(loads: Sequence[GroupLoad], prompt: int) -> list[int]:
    """The groups, the best first: those that serve, where a prompt of so many tokens is read the
    soonest."""

    def delay(group: int) -> int:
        one = loads[group]
        return one.unread + one.streams * STREAM_TOKENS + prompt - one.cached

    return sorted(range(len(loads)), key=lambda group: (not loads[group].serves, delay(group)))


class Prefixes:
    """The pages that a group has read lately, at most as many as its cache has. For one thread at a
    time."""

    def __init__(self, most_pages: int) -> None:
        self._most = most_pages
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def cached(self, pages: Sequence[bytes]) -> int:
        """Tokens at the start of a prompt, of these ``pages``, that are likely to be there."""
        count = 0
        for page in pages:
            if page not in self._known:
                break
            count += 1
        return count * PAGE_SIZE

    def note(self, pages: Sequence[bytes]) -> None:
        """They are read, or will be soon."""
        for page in reversed(pages):  # what others share goes last
            self._known[page] = None
            self._known.move_to_end(page)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """The cache is empty."""
        self._known.clear()


def pages_of(tokens: Sequence[int], salt: str) -> list[bytes]:
    """Names of the full pages of a prompt, each of all up to its end, for one salt."""
    return list(_pages(tokens, salt))


def _pages(tokens: Sequence[int], salt: str) -> Iterator[bytes]:
    name = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    for stop in range(PAGE_SIZE, len(tokens) + 1, PAGE_SIZE):
        own = array("q", tokens[stop - PAGE_SIZE : stop]).tobytes()
        name = hashlib.blake2b(name + own, digest_size=16).digest()
        yield name
