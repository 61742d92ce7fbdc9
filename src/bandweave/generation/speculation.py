"""Speculation: which drafts a step checks, and what came of them.

Joins a drafter and a pace. Chooses no tokens: the generator samples every row with its own
position's randomness and takes a draft while it is the very token that was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandweave.generation.answering import Answering
from bandweave.generation.drafting import Drafter, Offer
from bandweave.generation.pace import Odds, Pace, plan_lengths

DEFAULT_DRAFT_TOKENS = 8
MAX_DRAFT_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """Drafted tokens of the answers of a step, in their order, and the seconds that they took."""

    tokens: list[list[int]]
    kinds: list[int]
    seconds: float


class Speculation:
    """Drafts for a generator's steps. ``adaptive`` off drafts whatever can be drafted: answers are
    the same, which is what tests need."""

    def __init__(
        self,
        drafter: Drafter,
        *,
        draft_tokens: int = DEFAULT_DRAFT_TOKENS,
        adaptive: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 1 <= draft_tokens <= MAX_DRAFT_TOKENS:
            raise ValueError(
                f"drafts of {draft_tokens} tokens; they must have 1 to {MAX_DRAFT_TOKENS}"
            )
        self.drafter = drafter
        self._most, self._adaptive, self._clock = draft_tokens, adaptive, clock
        self._pace = Pace()

    def plan(self, answers: Sequence[Answering], most_rows: int) -> Drafts:
        """Drafts for answers that each have a row of the step already."""
        start = self._clock()
        offers = [self.drafter.offer(one, min(self._most, one.draftable)) for one in answers]
        lengths = self._lengths(answers, offers, most_rows)
        wanted = [(one, n) for one, n in zip(answers, lengths, strict=True) if n]
        drafted = iter(self.drafter.draft(wanted) if wanted else [])
        tokens = [next(drafted) if n else [] for n in lengths]
        seconds = self._clock() - start
        if wanted:
            self._pace.observe_draft(max(lengths), seconds)
        return Drafts(tokens=tokens, kinds=[offer.kind for offer in offers], seconds=seconds)

    def observe(
        self, answers: Sequence[Answering], drafts: Drafts, accepted: Sequence[int], seconds: float
    ) -> None:
        """What came of a step's drafts: how many tokens of each were right, and the step's time."""
        self._pace.costs.observe(len(answers) + sum(map(len, drafts.tokens)), seconds)
        for one, tokens, kind, right in zip(
            answers, drafts.tokens, drafts.kinds, accepted, strict=True
        ):
            if tokens:
                self._pace.acceptance(one.index, kind).observe(len(tokens), right)
            one.drafted += len(tokens)
            one.accepted += right

    def end(self, index: int) -> None:
        """That answer is done."""
        self.drafter.end(index)
        self._pace.end(index)

    def _lengths(
        self, answers: Sequence[Answering], offers: Sequence[Offer], most_rows: int
    ) -> list[int]:
        if not self._adaptive:
            return _as_offered(offers, most_rows)
        pace, plain = self._pace, len(answers)
        # A plain step first: without it no draft can be judged.
        if not pace.costs.known(plain) or not any(offer.count for offer in offers):
            return [0] * plain
        known = [
            pace.acceptance(one.index, offer.kind)
            for one, offer in zip(answers, offers, strict=True)
        ]
        lengths = plan_lengths(
            [
                Odds(count=offer.count, acceptance=one.rate)
                for offer, one in zip(offers, known, strict=True)
            ],
            most_rows=most_rows,
            step_seconds=pace.costs.seconds,
            draft_seconds=pace.draft_seconds,
        )
        for offer, one, length in zip(offers, known, lengths, strict=True):
            if offer.count and not length:
                one.rest()
        return lengths


def _as_offered(offers: Sequence[Offer], most_rows: int) -> list[int]:
    left, lengths = most_rows - len(offers), []
    for offer in offers:
        lengths.append(min(offer.count, left))
        left -= lengths[-1]
    return lengths
