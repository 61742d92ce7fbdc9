"""Speculation: which drafts a step checks, and what came of them.

Joins a drafter and a observed. Chooses no tokens: the generator samples every row with its own
position's randomness and takes a draft while it is the very token that was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as ListOf
from dataclasses import dataclass

from bandweave.generation.sequence import Sequence
from bandweave.generation.speculation.draft_length import Observations, Odds, plan_lengths
from bandweave.generation.speculation.drafter import Drafter, Proposal
from bandweave.run_options import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS


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
        self._observed = Observations()

    def plan(self, answers: ListOf[Sequence], most_rows: int) -> Drafts:
        """Drafts for answers that each have a row of the step already."""
        start = self._clock()
        proposals = [self.drafter.propose(one, min(self._most, one.draftable)) for one in answers]
        lengths = self._lengths(answers, proposals, most_rows)
        wanted = [(one, n) for one, n in zip(answers, lengths, strict=True) if n]
        drafted = iter(self.drafter.draft(wanted) if wanted else [])
        tokens = [next(drafted) if n else [] for n in lengths]
        self.drafter.settle()
        seconds = self._clock() - start
        if wanted:
            self._observed.observe_draft(max(lengths), seconds)
        return Drafts(
            tokens=tokens, kinds=[proposal.kind for proposal in proposals], seconds=seconds
        )

    def observe(
        self, answers: ListOf[Sequence], drafts: Drafts, accepted: ListOf[int], seconds: float
    ) -> None:
        """What came of a step's drafts: how many tokens of each were right, and the step's time."""
        self._observed.costs.observe(len(answers) + sum(map(len, drafts.tokens)), seconds)
        for one, tokens, kind, right in zip(
            answers, drafts.tokens, drafts.kinds, accepted, strict=True
        ):
            if tokens:
                self._observed.acceptance(one.id, kind).observe(len(tokens), right)
            one.drafted += len(tokens)
            one.accepted += right

    def end(self, id: int) -> None:
        """That sequence is done."""
        self.drafter.end(id)
        self._observed.end(id)

    def _lengths(
        self, answers: ListOf[Sequence], proposals: ListOf[Proposal], most_rows: int
    ) -> list[int]:
        if not self._adaptive:
            return _as_proposed(proposals, most_rows)
        observed, plain = self._observed, len(answers)
        # A plain step first: without it no draft can be judged.
        if not observed.costs.known(plain) or not any(proposal.count for proposal in proposals):
            return [0] * plain
        known = [
            observed.acceptance(one.id, proposal.kind)
            for one, proposal in zip(answers, proposals, strict=True)
        ]
        lengths = plan_lengths(
            [
                Odds(count=proposal.count, acceptance=one.rate)
                for proposal, one in zip(proposals, known, strict=True)
            ],
            most_rows=most_rows,
            step_seconds=observed.costs.seconds,
            draft_seconds=observed.draft_seconds,
        )
        for proposal, one, length in zip(proposals, known, lengths, strict=True):
            if proposal.count and not length:
                one.rest()
        return lengths


def _as_proposed(proposals: ListOf[Proposal], most_rows: int) -> list[int]:
    left, lengths = most_rows - len(proposals), []
    for proposal in proposals:
        lengths.append(min(proposal.count, left))
        left -= lengths[-1]
    return lengths
