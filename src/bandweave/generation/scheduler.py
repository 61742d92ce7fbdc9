"""Scheduler: which sequences have rows in the next step, and which pages they get.

Sequences come and go between steps. All that run decode a row each; prompts are read beside them in
as many rows as the step's time allows. Pages are given as a sequence grows; where they run out the
youngest of whoever was served most gives way and is computed again later, which no answer shows.
Where several steps may be under way those that decode are divided among them, and a sequence has
rows in one at a time: it waits for its own token, and nothing is taken from it meanwhile.
Pure: knows no executors, no clock but that of its steps, and chooses no tokens.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence as ListOf
from dataclasses import dataclass

from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.batch import Rows
from bandweave.generation.fairness import Fairness
from bandweave.generation.pace import Pace
from bandweave.generation.pages import Cached, PagePool
from bandweave.generation.precedence import greediest, has_forerunner, least_entitled
from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.generation.request_bounds import RequestBounds
from bandweave.generation.rows import share_rows
from bandweave.generation.sequence import Sequence

_HEARD_ROWS = 32


@dataclass(eq=False, kw_only=True)
class SequenceRows(Rows):
    """A sequence's rows of a step: its next tokens, the last ``wants`` of which ask for logits; all
    of those but the first are drafted. ``right``: tokens that turned out to be the answer's."""

    sequence: Sequence
    decodes: bool
    right: int = 0

    def __post_init__(self) -> None:
        self.right = len(self.tokens)


class Scheduler:
    """``context``: tokens that one sequence may have, for which the pages must suffice.

    Of the requests of one key, whoever came first is served first: it is never made to wait for one
    that came later, and never loses its pages to it. Keys are served alike, by their weights.

    ``groups``: steps that may be under way at a time, each planned by ``schedule`` and ended, in
    that order, by ``commit``.
    """

    def __init__(
        self,
        *,
        num_pages: int,
        context: int,
        max_rows: int,
        vocab_size: int,
        num_states: int = 0,
        groups: int = 1,
    ) -> None:
        self._groups = groups
        self._unwanted: set[int] = set()  # cancelled while their steps were under way
        self._pool = PagePool(num_pages, num_states)
        self._bounds = RequestBounds(context=context, vocab_size=vocab_size, num_pages=num_pages)
        self._max_rows = max_rows
        self._fairness = Fairness()
        self._pace = Pace()
        self.preempted = 0  # sequences that gave way, since the start
        self._waiting: list[Sequence] = []  # both by arrival
        self._running: list[Sequence] = []
        self._ended: list[Sequence] = []
        self._arrivals = self._steps = 0
        self._refused: tuple[int, int] | None = None  # the first that waits, and the pages then

    @property
    def busy(self) -> bool:
        """Whether anything is to be computed or told."""
        return bool(self._waiting or self._running or self._ended)

    @property
    def running(self) -> ListOf[Sequence]:
        """The sequences that have pages, by arrival."""
        return self._running

    @property
    def waiting(self) -> ListOf[Sequence]:
        """The sequences that have none, by arrival."""
        return self._waiting

    @property
    def pool(self) -> PagePool:
        return self._pool

    def check(self, request: Request) -> None:
        """``ValueError`` for a request that cannot be run here."""
        self._bounds.check(request)

    def submit(self, id: int, request: Request, options: CallOptions = USUAL) -> Sequence:
        """A request arrives, under a name that no other has at present. ``ValueError`` where it
        cannot be run; then nothing has changed."""
        self.check(request)
        if any(one.id == id for one in (*self._waiting, *self._running, *self._ended)):
            raise ValueError(f"there is a request {id} already")
        self._arrivals += 1
        sequence = Sequence(
            id=id,
            request=request,
            limit=self._bounds.limit(request),
            arrival=self._arrivals,
            chunk=options.chunk,
            reuse=options.reuse and not request.scored,
            digest=hashlib.sha256() if options.digest else None,
        )
        if sequence.complete:  # all was said, and nothing of it is asked for again
            self._ended.append(sequence)
            return sequence
        self._waiting.append(sequence)
        self._fairness.enter(request.key)
        return sequence

    def cancel(self, id: int) -> None:
        """A request is no longer wanted. Nothing happens where it has ended, or never was. One
        whose digests are those of what was said elsewhere ends when they are there; one whose step
        is under way, behind that."""
        for sequence in (*self._waiting, *self._running):
            if sequence.id == id and sequence.under_way:
                self._unwanted.add(id)
            elif sequence.id == id:
                sequence.reason = "cancelled"
                if sequence.complete:
                    self._end(sequence)

    def retract(self, id: int) -> None:
        """A request that waits never came."""
        for sequence in (*self._waiting, *self._running):
            if sequence.id == id:
                self._end(sequence)
        self._ended = [one for one in self._ended if one.id != id]

    def schedule(self) -> list[SequenceRows]:
        """The rows of the next step, with pages for them; none where nothing can be computed before
        a step that is under way has ended."""
        self._admit()
        self._steps += 1
        free = [one for one in self._running if not one.under_way]
        # Some place among those of one key is by arrival: the sort is stable.
        reading = sorted((one for one in free if not one.decodes), key=self._served)
        decoding = [one for one in free if one.decodes]
        rows = min(self._share(len(decoding), reading)[0], self._most_of_group())
        if len(decoding) > rows:
            decoding.sort(key=lambda one: (one.served, one.arrival))
            decoding = sorted(decoding[:rows], key=_arrival)
        # One that has given way to an older one has no pages; it may have had its turn, too.
        decoding = [one for one in decoding if one.cached.pages and self._give_page(one)]
        running = set(map(id, self._running))
        batch = [_rows(one, 1) for one in decoding if id(one) in running]
        reading = [one for one in reading if id(one) in running]
        _, counts = self._share(len(batch), reading)
        batch += [_rows(one, n) for one, n in zip(reading, counts, strict=True) if n]
        for rows_of in batch:
            rows_of.sequence.served, rows_of.sequence.under_way = self._steps, True
            self._pool.keep_state(rows_of.cached, len(rows_of.tokens))
        return batch

    def extend(self, rows: SequenceRows, drafted: ListOf[int]) -> None:
        """Adds drafted tokens to a sequence's rows, as many as there are pages for: nobody gives
        way to a guess."""
        first = len(rows.cached.tokens) + len(rows.tokens)
        pages = len(rows.cached.pages) + self._pool.available
        drafted = drafted[: max(0, pages * PAGE_SIZE - first)]
        self._pool.grow(rows.cached, first + len(drafted))
        rows.tokens += drafted
        rows.wants += len(drafted)
        rows.right = len(rows.tokens)

    def commit(self, batch: ListOf[SequenceRows], seconds: float | None = None) -> None:
        """A step is over, which took so long: keys and values of the rows that were right stand in
        their pages. What lies behind is overwritten by the next step, and nothing reads beyond its
        own position."""
        if seconds is not None:
            decoding = [len(rows.tokens) for rows in batch if rows.decodes]
            reading = sum(len(rows.tokens) for rows in batch) - sum(decoding)
            self._pace.observe(decoding=len(decoding), reading=reading, seconds=seconds)
        for rows in batch:
            request, right = rows.sequence.request, rows.right
            count = {"written": right} if rows.decodes else {"read": right}
            self._fairness.count(request.key, weight=request.weight, **count)
            rows.cached.tokens += rows.tokens[: rows.right]
            self._pool.settle(rows.cached)
            rows.sequence.under_way = False
            if rows.sequence.complete:
                self._end(rows.sequence)
            self._leave_unwanted(rows.sequence.id)

    def fail(self, batch: ListOf[SequenceRows]) -> None:
        """A step has failed: states that it wrote are lost, and their sequences begin anew."""
        for rows in batch:
            rows.sequence.under_way = False
            if rows.cached.state >= 0:
                self._pool.lose_state(rows.cached)
                self._preempt(rows.sequence)
            self._leave_unwanted(rows.sequence.id)

    def _leave_unwanted(self, id: int) -> None:
        """What was cancelled while its step was under way ends now, if it has not by itself."""
        if id in self._unwanted:
            self._unwanted.remove(id)
            self.cancel(id)

    def take_ended(self) -> list[Sequence]:
        """The sequences that have ended since the last call, in the order of their ends."""
        ended, self._ended = self._ended, []
        return ended

    def abandon(self) -> list[Sequence]:
        """Ends everything; all that was under way."""
        self._unwanted.clear()
        for sequence in (*self._waiting, *self._running):
            self._end(sequence)
        return self.take_ended()

    def _most_of_group(self) -> int:
        """Sequences of a step that decode: an even part of all that do, so that each of the steps
        under way takes the stages about as long as the others."""
        return -(-sum(one.decodes for one in self._running) // self._groups)

    def _share(self, decoding: int, reading: ListOf[Sequence]) -> tuple[int, list[int]]:
        prompts = [(one.length - len(one.cached.tokens), _chunk(one)) for one in reading]
        # Whoever decodes in another step waits for this one's rows too.
        listening = decoding or sum(one.decodes for one in self._running if one.under_way)
        most = self._pace.rows(decoding=listening, most=self._max_rows)
        return share_rows(decoding, prompts, max_rows=self._max_rows, step=self._steps, most=most)

    def _served(self, sequence: Sequence) -> float:
        return self._fairness.served(sequence.request.key)

    def _admit(self) -> None:
        """Starts those that wait, of the key that was served least the first, while there are pages
        for all that each has to read, and for one page more of each that runs. A key that has more
        than its share of those that run gives way."""
        while waiting := [one for one in self._waiting if not has_forerunner(one, self._running)]:
            one = min(waiting, key=self._served)  # the first of those that are alike
            while not self._start(one):
                greedy = greediest(one, self._running)
                if greedy is None or greedy.under_way:
                    return
                self._preempt(greedy)

    def _start(self, one: Sequence) -> bool:
        """Whether a sequence that waits has pages now."""
        if not self._pool.can_start:
            return False
        spare = len(self._running)
        room = self._pool.available - spare
        if self._refused is not None and self._refused[0] == one.id and room <= self._refused[1]:
            return False  # a long prompt's pages are not sought again at every step
        start = one.tokens[: one.needed + 1]
        cached = self._pool.claim(start, reuse=one.reuse, salt=one.request.salt)
        missing = self._pool.needs(cached, one.length + 1)
        if missing > self._pool.available - spare:
            self._pool.release(cached)
            self._refused = (one.id, room)
            return False
        self._refused = None
        self._pool.grow(cached, one.length + 1)
        if not one.served:
            one.reused = min(len(cached.tokens), len(one.request.tokens))
        one.cached = cached
        self._waiting.remove(one)
        bisect.insort(self._running, one, key=_arrival)
        return True

    def _give_page(self, sequence: Sequence) -> bool:
        """A page for the sequence's next token, where none is left from the youngest of the key
        that was served most; False where that is itself, or has its step to end first."""
        length = len(sequence.cached.tokens) + 1
        while self._pool.needs(sequence.cached, length) > self._pool.available:
            victim = least_entitled(self._running, self._served)
            if victim.under_way:
                return False
            self._preempt(victim)
            if victim is sequence:
                return False
        self._pool.grow(sequence.cached, length)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self.preempted += 1
        self._pool.release(sequence.cached)
        sequence.cached = Cached()
        sequence.preempted += 1
        bisect.insort(self._waiting, sequence, key=_arrival)

    def _end(self, sequence: Sequence) -> None:
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._pool.release(sequence.cached)
            sequence.cached = Cached()
        self._fairness.leave(sequence.request.key)
        self._ended.append(sequence)


def _rows(sequence: Sequence, most: int) -> SequenceRows:
    tokens = sequence.todo(most)
    end = len(sequence.cached.tokens) + len(tokens)
    wants = int(end == sequence.length)
    asked = min(len(tokens), max(0, end - sequence.needed))
    return SequenceRows(
        sequence=sequence,
        cached=sequence.cached,
        tokens=tokens,
        wants=wants,
        heard=asked - wants,
        decodes=sequence.decodes,
    )


def _chunk(sequence: Sequence) -> int | None:
    """Rows of logits take memory, those of a prompt that is scored too, and those that are hashed
    again."""
    if sequence.needed >= sequence.length - 1:
        return sequence.chunk
    most = max(0, sequence.needed - len(sequence.cached.tokens)) + _HEARD_ROWS
    return min(sequence.chunk or most, most)


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
