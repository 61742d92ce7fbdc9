"""RequestBounds: which requests can be run, and how long their answers may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.request import Request


@dataclass(frozen=True, kw_only=True)
class RequestBounds:
    """``context``: tokens that a prompt and its answer may have together; ``num_pages`` of all
    sequences."""

    context: int
    vocab_size: int
    num_pages: int

    def check(self, request: Request) -> None:
        """``ValueError`` for a request that cannot be run here."""
        count = len(request.tokens)
        if count == 0:
            raise ValueError("the prompt is empty; give at least one token")
        if count >= self.context:
            raise ValueError(
                f"the prompt has {count} tokens, but the context holds {self.context}, the "
                "answer included; shorten the prompt or raise --context"
            )
        if -(-self.context // PAGE_SIZE) > self.num_pages:
            raise ValueError(
                f"{self.num_pages} KV pages of {PAGE_SIZE} tokens do not hold one context "
                f"of {self.context} tokens"
            )
        for token in (min(request.tokens), max(request.tokens)):
            if not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"token {token} is not in the vocabulary of {self.vocab_size} tokens"
                )
        if max(request.params.biased, default=0) >= self.vocab_size:
            raise ValueError(
                f"token {max(request.params.biased)} has a bias, but is not in the vocabulary of "
                f"{self.vocab_size} tokens"
            )
        self._check_said(request)

    def _check_said(self, request: Request) -> None:
        said, limit = request.said, self.limit(request)
        if len(said) > limit:
            raise ValueError(f"{len(said)} tokens were said of an answer of at most {limit}")
        if said and not 0 <= min(said) <= max(said) < self.vocab_size:
            raise ValueError(
                f"token {max(said)} was said, but is not in the vocabulary of {self.vocab_size} "
                "tokens"
            )

    def limit(self, request: Request) -> int:
        """Tokens that its answer may have."""
        room, wanted = self.context - len(request.tokens), request.params.max_tokens
        return room if wanted is None else min(room, wanted)
