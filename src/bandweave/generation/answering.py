"""Answering: one answer under way, from its first prompt chunk to its last token.

Keeps its tokens, its digests and where its time went; knows no executors and chooses no tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from bandweave.generation.pages import Cached
from bandweave.generation.request import Request, Result, Timing


@dataclass(eq=False, kw_only=True)
class Answering:
    """An answer under way. ``limit``: its tokens at most; ``digest``: a SHA-256 over the logits of
    its positions so far, or None; ``digests``: its hex values after each token."""

    index: int
    request: Request
    limit: int
    cached: Cached = field(default_factory=Cached)
    answer: list[int] = field(default_factory=list)
    digest: Any = None
    digests: list[str] = field(default_factory=list)
    reused: int = 0
    reason: str = ""
    error: str = ""
    started: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    sampling: float = 0.0
    drafting: float = 0.0
    computing: float = 0.0
    between: float = 0.0
    decode_steps: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def length(self) -> int:
        return len(self.request.tokens) + len(self.answer)

    @property
    def most_tokens(self) -> int:
        return len(self.request.tokens) + self.limit

    @property
    def needs_best_only(self) -> bool:
        """Whether the best token alone decides: greedy, nothing changes or hashes the logits."""
        return self.request.params.needs_best_only and self.digest is None

    @property
    def draftable(self) -> int:
        """Tokens that can be drafted: a step gives one token more than were drafted."""
        return max(0, self.limit - len(self.answer) - 1)

    def append(self, token: int) -> None:
        """The next token of the answer, whose logits the digest has seen already."""
        self.answer.append(token)
        if self.digest is not None:
            self.digests.append(self.digest.hexdigest())
        if token in self.request.end_tokens:
            self.reason = "stop"
        elif len(self.answer) >= self.limit:
            self.reason = "length"

    def fail(self, error: str) -> None:
        """Ends the answer by its own numbers."""
        self.reason, self.error = "error", error

    def account(self, *, drafting: float, begun: float, computed: float, chosen: float) -> None:
        """Bills one step that gave tokens; the times are those of its start, of its logits, and of
        the choice of its tokens.

        What lies between two steps is counted too, so that the items add up to the time from the
        logits of the first token to the choice of the last.
        """
        if self.first_at == 0.0:
            self.first_at = computed
        else:
            self.decode_steps += 1
            self.drafting += drafting
            self.computing += computed - begun
            self.between += max(0.0, begun - self.last_at - drafting)
        self.sampling += chosen - computed
        self.last_at = chosen

    def todo(self) -> list[int]:
        """Tokens whose keys and values are not in the cache yet."""
        known = len(self.cached.tokens)
        prompt = self.request.tokens
        if known < len(prompt):
            return list(prompt[known:])
        return self.answer[known - len(prompt) :]

    def result(self) -> Result:
        """What is told to whoever asked."""
        timing = Timing(
            prefill=self.first_at - self.started if self.answer else 0.0,
            decode=self.last_at - self.first_at if self.answer else 0.0,
            sampling=self.sampling,
            drafting=self.drafting,
            computing=self.computing,
            between=self.between,
            prompt_tokens=len(self.request.tokens),
            reused_tokens=self.reused,
            decode_tokens=max(0, len(self.answer) - 1),
            decode_steps=self.decode_steps,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )
        nothing = hashlib.sha256().hexdigest()
        return Result(
            tokens=tuple(self.answer),
            reason=self.reason,
            logits_digest="" if self.digest is None else (self.digests or [nothing])[-1],
            digests=tuple(self.digests),
            timing=timing,
            error=self.error,
        )
