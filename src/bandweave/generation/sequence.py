"""Sequence: a prompt and its answer, from the first chunk that is read to the last token.

Keeps its tokens, its digests and where its time went; knows no executors and chooses no tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from bandweave.generation.grammar import Matcher
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.pages import Cached
from bandweave.generation.request import Request, Result, Timing


@dataclass(eq=False, kw_only=True)
class Sequence:
    """A request and its answer so far. ``id`` is the caller's name for it, ``arrival`` its place
    among all that came; ``limit``: tokens of the answer at most; ``chunk``: prompt tokens of a step
    at most, None for as many as fit; ``reuse``: whether it may begin with what others computed;
    ``digest``: a SHA-256 over the logits of its positions so far, or None; ``digests``: its hex
    values after each token; ``logprobs`` of the answer's tokens; ``matcher``: what holds it to its
    grammar; ``served``: the last step that had rows of it; ``under_way``: whether that step has yet
    to end. An answer begins with what was ``said`` of it elsewhere."""

    id: int
    request: Request
    limit: int
    arrival: int = 0
    chunk: int | None = None
    reuse: bool = True
    cached: Cached = field(default_factory=Cached)
    answer: list[int] = field(default_factory=list)
    digest: Any = None
    digests: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    embedding: tuple[float, ...] = ()
    matcher: Matcher | None = None
    reused: int = 0
    served: int = 0
    under_way: bool = False
    preempted: int = 0
    reason: str = ""
    error: str = ""
    arrived: float = 0.0
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

    def __post_init__(self) -> None:
        if self.request.said:
            self.answer = list(self.request.said)
            self.reason = self._end_behind(self.answer[-1])

    @property
    def length(self) -> int:
        return len(self.request.tokens) + len(self.answer)

    @property
    def needed(self) -> int:
        """The first position, from 0, behind which logits are asked for that nobody has seen: the
        last one's, which give the next token, or those that give scores, an embedding and digests
        of what was said already."""
        prompt = len(self.request.tokens)
        first = self.length - 1
        if self._lacks_digests:
            first = min(first, prompt - 1 + len(self.digests))
        if self.request.embeds and not self.embedding:
            first = min(first, prompt - 1)
        if self.request.scored and not self._scored:
            first = min(first, len(self.prompt_logprobs))
        return first

    @property
    def _scored(self) -> bool:
        return len(self.prompt_logprobs) >= len(self.request.tokens) - 1

    @property
    def complete(self) -> bool:
        """Whether nothing is left to compute: it has come to its end, and whatever was asked for
        beside its tokens is there."""
        if self.reason == "cancelled":
            return not self._lacks_digests
        return bool(self.reason) and (self.reason == "error" or self.needed == self.length - 1)

    @property
    def _lacks_digests(self) -> bool:
        """Whether logits are to be hashed of which a token was said elsewhere."""
        return self.digest is not None and len(self.digests) < len(self.answer)

    @property
    def is_fresh(self) -> bool:
        """Whether no token of it was chosen here yet."""
        return len(self.answer) == len(self.request.said)

    def is_scored_at(self, position: int) -> bool:
        """Whether logits of this position tell what a token of the prompt was worth, and nobody has
        told yet."""
        asked = self.request.scored and not self._scored
        return asked and position == len(self.prompt_logprobs)

    def is_hashed_at(self, position: int) -> bool:
        """Whether logits of this position gave a token elsewhere, and are yet to be hashed here."""
        first = len(self.request.tokens) - 1 + len(self.digests)
        return self._lacks_digests and position == first

    @property
    def decodes(self) -> bool:
        """Whether its last token alone is left to compute; else it reads a prompt, or after a
        preemption all that was said."""
        return bool(self.answer) and len(self.cached.tokens) == self.length - 1

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far."""
        return [*self.request.tokens, *self.answer]

    @property
    def needs_best_only(self) -> bool:
        """Whether the best token alone decides: greedy, nothing changes or hashes the logits."""
        request = self.request
        plain = request.params.needs_best_only and request.logprobs is None
        return plain and self.digest is None and self.matcher is None

    @property
    def draftable(self) -> int:
        """Tokens that can be drafted: a step gives one token more than were drafted."""
        return max(0, self.limit - len(self.answer) - 1)

    def append(self, token: int) -> None:
        """The next token of the answer, whose logits the digest has seen already."""
        self.answer.append(token)
        if self.digest is not None:
            self.digests.append(self.digest.hexdigest())
        self.reason = self._end_behind(token)

    def _end_behind(self, token: int) -> str:
        """Why the answer ends with this token; empty where it goes on."""
        if token in self.request.end_tokens:
            return "stop"
        return "length" if len(self.answer) >= self.limit else ""

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

    def todo(self, most: int) -> list[int]:
        """The first ``most`` tokens whose keys and values are not in the cache yet, up to the last
        one that something is asked of."""
        known, prompt = len(self.cached.tokens), self.request.tokens
        stop = len(self.answer) - (1 if self.reason else 0)
        answer = self.answer[max(0, known - len(prompt)) : stop]
        if known >= len(prompt):
            return answer[:most]
        return [*prompt[known : known + most], *answer][:most]

    def said(self, start: int, stop: int) -> list[int]:
        """Tokens of prompt and answer from position ``start`` on, before ``stop``."""
        prompt, behind = self.request.tokens, len(self.request.tokens)
        answer = self.answer[max(0, start - behind) : max(0, stop - behind)]
        return [*prompt[start:stop], *answer]

    def result(self) -> Result:
        """What is told to whoever asked."""
        timing = Timing(
            waiting=self.started - self.arrived if self.started else 0.0,
            prefill=self.first_at - self.started if self.first_at else 0.0,
            decode=self.last_at - self.first_at if self.first_at else 0.0,
            sampling=self.sampling,
            drafting=self.drafting,
            computing=self.computing,
            between=self.between,
            prompt_tokens=len(self.request.tokens),
            reused_tokens=self.reused,
            decode_tokens=max(0, len(self.answer) - len(self.request.said) - 1),
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
            prompt_logprobs=tuple(self.prompt_logprobs),
            embedding=self.embedding,
            timing=timing,
            error=self.error,
        )
