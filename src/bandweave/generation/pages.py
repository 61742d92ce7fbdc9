"""Pages: which KV pages belong to which sequence, and which tokens they hold.

Knows page numbers and tokens; the pages themselves are the executors'. Every node of a model uses
the same numbers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.page_index import ROOT, PageIndex
from bandweave.generation.states import Key, StatePool


@dataclass(eq=False)
class Cached:
    """A sequence's pages and the tokens whose keys and values they hold. ``prefixes`` are the
    pool's names for what its full pages hold, each together with all before it; ``root``: for what
    lies before the first.

    Of models with recurrent states: ``state`` is the slot that its steps write, -1 for none;
    ``source`` the one that its next step reads in the place of it; ``stops`` are numbers of tokens
    behind which the state is worth keeping, and ``keeping`` the slot that gets it in the step at
    hand, with the one of them.
    """

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    prefixes: list[int] = field(default_factory=list)
    root: int = ROOT
    state: int = -1
    source: int = -1
    stops: list[int] = field(default_factory=list)
    keeping: tuple[int, int] | None = None


class PagePool:
    """All pages of a model's cache, each with the number of sequences that use it.

    Sequences that begin alike share the pages that their common beginning fills: a full page is
    never written again. Pages that nobody uses keep what they hold until they are needed, the one
    that was left first going first; the last page of a sequence, which is not full, can then be
    taken over by one that goes on from there, or from some place in it where that saves more than
    it loses. Sequences with different salts share nothing.

    With ``num_states`` each sequence has a slot of the model's states as well, and begins with no
    more of others' pages than some slot keeps the state behind.
    """

    def __init__(self, num_pages: int, num_states: int = 0) -> None:
        self.num_pages = num_pages
        self._states = StatePool(num_states) if num_states else None
        self._free = list(range(num_pages - 1, -1, -1))
        self._users = [0] * num_pages
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._index = PageIndex()  # full pages, and of those that are not, what nobody uses

    @property
    def available(self) -> int:
        """Pages that no sequence uses."""
        return len(self._free) + len(self._idle)

    @property
    def kept(self) -> int:
        """Pages that no sequence uses, and that hold what some may go on from."""
        return len(self._idle)

    @property
    def can_start(self) -> bool:
        """Whether there is a slot for one more sequence's state, where it needs one."""
        return self._states is None or self._states.available > 0

    def claim(self, tokens: Sequence[int], *, reuse: bool = True, salt: str = "") -> Cached:
        """A sequence that is to begin with ``tokens``, with as many of them as some pages of its
        ``salt`` hold, or with none without ``reuse``. ``can_start`` must be true.

        At least the last token is left to compute: its logits are wanted.
        """
        cached, most = Cached(root=_root(salt)), len(tokens) - 1
        chain = self._chain(cached.root, tokens, most) if reuse else []
        tail, depth = -1, len(chain)
        if self._states is not None:
            depth, tail = (0, 0)
            if reuse:
                depth, tail = self._state_behind(cached.root, tokens, most, chain)
            end = len(chain) * PAGE_SIZE
            cached.stops = sorted({end, most - most % PAGE_SIZE} - {0})
        for page, prefix in chain[:depth]:
            self._use(page)
            cached.pages.append(page)
            cached.prefixes.append(prefix)
        cached.tokens += tokens[: depth * PAGE_SIZE]
        if reuse:
            rest = tuple(tokens[len(cached.tokens) : most][:PAGE_SIZE])
            self._claim_tail(cached, rest if tail < 0 else rest[:tail], exactly=tail >= 0)
        if self._states is not None and cached.state < 0:
            self._claim_state(cached, self._states)
        cached.stops = [stop for stop in cached.stops if stop > len(cached.tokens)]
        return cached

    def _chain(self, root: int, tokens: Sequence[int], most: int) -> list[tuple[int, int]]:
        """The full pages that hold the first of these tokens, each with its prefix."""
        chain: list[tuple[int, int]] = []
        while (end := (len(chain) + 1) * PAGE_SIZE) <= most:
            before = chain[-1][1] if chain else root
            known = self._index.full(before, tuple(tokens[end - PAGE_SIZE : end]))
            if known is None:
                break
            chain.append(known)
        return chain

    def _state_behind(
        self, root: int, tokens: Sequence[int], most: int, chain: Sequence[tuple[int, int]]
    ) -> tuple[int, int]:
        """How many of the chain's pages, and of the tokens behind them in a page that is not full,
        some state stands behind: as many as possible."""
        assert self._states is not None
        for depth in range(len(chain), -1, -1):
            prefix = chain[depth - 1][1] if depth else root
            tails = self._index.tails(prefix)
            rest = tuple(tokens[depth * PAGE_SIZE : most][: PAGE_SIZE - 1])
            for length in range(len(rest), 0, -1) if tails else ():
                if rest[:length] in tails and self._states.has((prefix, rest[:length])):
                    return depth, length
            if depth and self._states.has((prefix, ())):
                return depth, 0
        return 0, 0

    def _claim_state(self, cached: Cached, states: StatePool) -> None:
        """A slot for a sequence that begins with full pages alone, or with nothing."""
        key = (_last(cached), ())
        if not cached.tokens:
            slot = states.take()
        else:
            cached.source = states.lend(key)
            slot = states.take()
            if slot is None:
                states.give_back(cached.source)
                cached.source, slot = -1, states.take_over(key)
        assert slot is not None, "there was a slot for one more sequence"
        cached.state = slot

    def keep_state(self, cached: Cached, count: int) -> None:
        """Has the next step, which has the sequence's next ``count`` tokens, keep the state behind
        some of them where that is worth it and a slot is left."""
        known = len(cached.tokens)
        stop = next((stop for stop in cached.stops if known < stop <= known + count), None)
        if stop is None or self._states is None or not self._states.available:
            return
        slot = self._states.take()
        assert slot is not None
        cached.keeping = slot, stop

    def settle(self, cached: Cached) -> None:
        """A step is over, and ``tokens`` are those that the sequence then has."""
        self.publish(cached)
        if self._states is None:
            return
        if cached.source >= 0:
            self._states.give_back(cached.source)
            cached.source = -1
        if cached.keeping is not None:
            slot, stop = cached.keeping
            self._states.keep(slot, (cached.prefixes[stop // PAGE_SIZE - 1], ()))
            cached.keeping = None
            cached.stops = [one for one in cached.stops if one > stop]

    def lose_state(self, cached: Cached) -> None:
        """A step has failed: what it wrote stands nowhere."""
        if self._states is None or cached.state < 0:
            return
        if cached.source >= 0:
            self._states.give_back(cached.source)
        if cached.keeping is not None:
            self._states.free(cached.keeping[0])
        self._states.free(cached.state)
        cached.state, cached.source, cached.keeping = -1, -1, None

    def spare_state(self) -> int:
        """A slot beside a sequence's own, -1 where none is left or none is needed."""
        slot = None if self._states is None else self._states.take()
        return -1 if slot is None else slot

    def drop_state(self, slot: int) -> None:
        """Such a slot is no longer needed."""
        if self._states is not None and slot >= 0:
            self._states.free(slot)

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
            before, own = _last(cached), tuple(cached.tokens[end - PAGE_SIZE : end])
            known = self._index.full(before, own)
            if known is None:
                page = cached.pages[len(cached.prefixes)]
                cached.prefixes.append(self._index.add_full(page, before, own))
            else:
                cached.prefixes.append(known[1])

    def release(self, cached: Cached) -> None:
        """A sequence has ended, or gives way; its pages keep what they hold while nobody needs
        them. Pages that hold none of its tokens, but drafts that were wrong, are free at once."""
        self.publish(cached)
        rest = len(cached.tokens) % PAGE_SIZE
        self._leave_state(cached, tuple(cached.tokens[len(cached.tokens) - rest :]))
        if rest:
            before, tail = _last(cached), tuple(cached.tokens[-rest:])
            if tail not in self._index.tails(before):
                page = cached.pages[len(cached.tokens) // PAGE_SIZE]
                self._index.add_tail(page, before, tail)
        for page in reversed(cached.pages):  # what others can share goes last
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._index:
                self._idle[page] = None
            else:
                self._free.append(page)

    def _leave_state(self, cached: Cached, tail: tuple[int, ...]) -> None:
        """The slot of a sequence that ends keeps the state for one that goes on from there."""
        if self._states is None or cached.state < 0:
            return
        if cached.source < 0 and cached.tokens:
            self._states.keep(cached.state, (_last(cached), tail))
            cached.state = -1
        else:  # it has never run
            self.lose_state(cached)

    def _claim_tail(self, cached: Cached, tokens: tuple[int, ...], *, exactly: bool) -> None:
        """The page that holds most of the next tokens, or all of them, and nothing else: to be
        written on. Where states are none of the matter, it may hold some that are not wanted."""
        before = _last(cached)
        tails = self._index.tails(before)
        least = max(0, len(tokens) - 1) if exactly else 0
        for length in range(min(len(tokens), PAGE_SIZE - 1), least, -1) if tails else ():
            page = tails.get(tokens[:length])
            if page is not None:
                if self._states is not None:
                    slot = self._states.take_over((before, tokens[:length]))
                    assert slot is not None, "a state in the midst of a page is read by nobody"
                    cached.state = slot
                self._take_over(cached, page, tokens[:length])
                return
        if self._states is None and tokens:
            nearest = self._index.nearest(before, tokens, lambda page: page in self._idle)
            if nearest is not None:
                self._take_over(cached, nearest[0], tokens[: nearest[1]])

    def _take_over(self, cached: Cached, page: int, tokens: tuple[int, ...]) -> None:
        self._forget(page)
        self._use(page)
        cached.pages.append(page)
        cached.tokens += tokens

    def _use(self, page: int) -> None:
        self._users[page] += 1
        self._idle.pop(page, None)

    def _free_page(self, page: int) -> None:
        self._forget(page)
        self._free.append(page)

    def _forget(self, page: int) -> None:
        """Nobody finds by its tokens any more what a page holds."""
        key, own = self._index.forget(page)
        self._drop_state(key if own == ROOT else (own, ()))

    def _drop_state(self, key: Key) -> None:
        """A state is of no use without the pages before it."""
        if self._states is not None:
            self._states.drop(key)


def _last(cached: Cached) -> int:
    """The prefix that a sequence's full pages make."""
    return cached.prefixes[-1] if cached.prefixes else cached.root


def _root(salt: str) -> int:
    """The prefix before any token with a salt: none that a pool ever counts to, and none that has
    to be remembered."""
    if not salt:
        return ROOT
    return -1 - int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=16).digest(), "big")
