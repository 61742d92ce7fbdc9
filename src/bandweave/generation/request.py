"""Request, CallOptions and Result: what is asked of an engine and what comes back. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.generation.logprobs import MOST_LOGPROBS, TokenLogprobs
from bandweave.generation.sampling import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to make: prompt token ids, how to choose, and which tokens end it.

    ``choice`` tells answers to one prompt apart (the randomness is keyed by it). ``logprobs``: of
    how many most likely tokens the log-probabilities are told with each token's own; None for none.
    ``scored``: those of the prompt's tokens are told, too. ``embeds``: so is what the head reads at
    the prompt's last token.
    ``grammar``: what the answer must keep to, as ``llguidance`` writes it; empty for anything.
    ``key`` says who asks, for those who ask share the machine alike, or by ``weight``.
    ``said``: what the answer begins with, for it was chosen already, by nodes that are no more: it
    is read, not chosen and not told again, and counts as if it had been chosen here.
    ``salt``: what is computed for a request is used by others of the same salt alone.
    """

    tokens: tuple[int, ...]
    params: SamplingParams
    end_tokens: frozenset[int] = frozenset()
    choice: int = 0
    logprobs: int | None = None
    scored: bool = False
    embeds: bool = False
    grammar: str = ""
    key: str = ""
    weight: float = 1.0
    said: tuple[int, ...] = ()
    salt: str = ""

    def __post_init__(self) -> None:
        """``ValueError`` for what makes no sense."""
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise ValueError(f"{self.logprobs} logprobs; there may be 0 to {MOST_LOGPROBS}")
        if self.scored and self.logprobs is None:
            raise ValueError("a prompt is scored by logprobs; ask for them, 0 for its tokens alone")
        if not 1e-3 <= self.weight <= 1e3:
            raise ValueError(f"a weight of {self.weight}; it must be from 0.001 to 1000")


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """How requests that are asked together are computed.

    ``chunk``: prompt tokens of a step at most, None for as many as fit. ``digest``: hash the logits
    of every generated position. ``reuse`` off computes prompts from their start.
    """

    chunk: int | None = None
    digest: bool = False
    reuse: bool = True

    def __post_init__(self) -> None:
        """``ValueError`` for what makes no sense."""
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"prompt chunks of {self.chunk} tokens; it must be at least 1")


USUAL = CallOptions()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one answer, on node 0's clock.

    ``waiting``: from its arrival until its first step began. ``prefill``: from there until the
    prompt's logits are there, ``reused_tokens`` of the prompt's tokens being in the cache already.
    ``decode``: the rest, ``decode_tokens`` tokens in ``decode_steps`` steps. It is the sum of
    ``computing`` (the steps themselves), ``sampling``, ``drafting`` and what lies ``between`` two
    steps. Of ``drafted_tokens`` guesses ``accepted_tokens`` were right.
    """

    waiting: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    sampling: float = 0.0
    drafting: float = 0.0
    computing: float = 0.0
    between: float = 0.0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    decode_tokens: int = 0
    decode_steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tokens_per_s(self) -> float:
        computed = self.prompt_tokens - self.reused_tokens
        return computed / self.prefill if self.prefill > 0 else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return self.decode_tokens / self.decode if self.decode > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished answer. ``reason``: ``"stop"``, ``"length"``, ``"cancelled"``, or ``"error"``
    where its own numbers ended it; ``error`` says how.

    ``tokens`` has the end token, if one ended it. ``logits_digest`` is the hex SHA-256 over the
    raw float32 little-endian logits of every generated position, or empty if not asked for;
    ``digests`` are its values after each token, for whoever takes fewer. ``prompt_logprobs`` are of
    the prompt's tokens from the second on, where they were asked for; so is ``embedding``, the
    normed hidden state of the prompt's last token.
    """

    tokens: tuple[int, ...]
    reason: str
    logits_digest: str
    timing: Timing
    digests: tuple[str, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    embedding: tuple[float, ...] = ()
    error: str = ""
