"""Choosing: a sequence's new tokens, from what a step gave for its rows.

Knows sampling, masks and log-probabilities; knows no executors and no pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as ListOf

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import StepError
from bandweave.generation.logprobs import TokenLogprobs, token_logprobs
from bandweave.generation.masks import Masks, masked
from bandweave.generation.sampling import NoTokenError, sample
from bandweave.generation.scheduler import SequenceRows
from bandweave.generation.sequence import Sequence

F32 = npt.NDArray[np.float32]


def take(rows: SequenceRows, best: Iterator[int]) -> list[int]:
    """The answer's new tokens, from the best token of each of its rows."""
    own = [next(best) for _ in range(rows.heard + rows.wants)][rows.heard :]
    if not own:
        return []
    return _follow(rows, (_checked(rows.sequence, token) for token in own))


class Chooser:
    """``exp``: section 5's of docs/numerics.md, by elements."""

    def __init__(self, exp: Callable[[F32], F32]) -> None:
        self._exp = exp

    def sample(self, rows: SequenceRows, logits: Iterator[F32], masks: Masks) -> list[int]:
        """The answer's new tokens, from the logits of each of its rows: each is chosen, and hashed,
        as if those before it had come one at a time."""
        self._hear(rows, [next(logits) for _ in range(rows.heard)])
        own = [next(logits) for _ in range(rows.wants)]
        if not own:
            return []
        return _follow(rows, (self._choose(rows.sequence, one, masks) for one in own))

    def _hear(self, rows: SequenceRows, logits: ListOf[F32]) -> None:
        """Log-probabilities of the prompt's tokens that follow these rows, and the digests of what
        was said already; each once, whatever a sequence that gave way computes again."""
        one = rows.sequence
        first = len(rows.cached.tokens) + len(rows.tokens) - rows.wants - rows.heard
        for position, row in enumerate(logits, first):
            if one.is_scored_at(position):
                if not np.isfinite(row).all():
                    raise StepError(str(_not_finite(one)))
                token = one.request.tokens[position + 1]
                one.prompt_logprobs.append(self._logprobs(one, row, token))
            elif one.is_hashed_at(position):
                _hash(one, row)
                one.digests.append(one.digest.hexdigest())

    def _logprobs(self, one: Sequence, logits: F32, token: int) -> TokenLogprobs:
        return token_logprobs(logits, token, one.request.logprobs or 0, self._exp)

    def _choose(self, one: Sequence, logits: F32, masks: Masks) -> int:
        if not np.isfinite(logits).all():
            raise _not_finite(one)
        if one.digest is not None:
            _hash(one, logits)
        request, matcher = one.request, one.matcher
        token = sample(
            logits if matcher is None else masked(logits, masks.of(matcher)),
            request.params,
            request.tokens,
            one.answer,
            one.length,
            request.choice,
            self._exp,
        )
        if matcher is not None:
            matcher.accept(token)
        if request.logprobs is not None:
            one.logprobs.append(self._logprobs(one, logits, token))
        return token


def _hash(one: Sequence, logits: F32) -> None:
    one.digest.update(np.ascontiguousarray(logits, dtype="<f4").tobytes())


def _follow(rows: SequenceRows, choices: Iterable[int]) -> list[int]:
    """Appends the tokens chosen from a sequence's rows, lazily, for as long as they are what the
    draft said and the answer goes on. An answer of which none can be chosen ends alone."""
    first = len(rows.tokens) - rows.wants + 1
    drafted = rows.tokens[first:]
    new: list[int] = []
    try:
        for token in choices:
            rows.sequence.append(token)
            new.append(token)
            place = len(new) - 1
            if rows.sequence.reason or place == len(drafted) or token != drafted[place]:
                break
    except NoTokenError as error:
        rows.sequence.fail(str(error))
    rows.right = first + len(new) - 1
    return new


def _checked(one: Sequence, token: int) -> int:
    """The best token; ``NoTokenError`` where there is none."""
    if token < 0:
        raise _not_finite(one)
    return token


def _not_finite(one: Sequence) -> NoTokenError:
    return NoTokenError(
        f"a logit of position {one.length} is not finite: the model's numbers have left their "
        "range there; another weight format or prompt may stay inside"
    )
