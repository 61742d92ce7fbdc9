"""Log-probabilities of tokens: what the model thinks, before temperature, penalties and masks.

Sums are those of section 7 of docs/numerics.md, so that every split gives the same figures.
Legend: V vocabulary, K the most likely tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bandweave.generation.sampling import F32, leading, total_weight

MOST_LOGPROBS = 20
_FLOOR = -9999.0  # JSON knows no minus infinity
_DIGITS = 6  # behind these the logarithms of two C libraries may differ


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """The natural logarithm of a token's probability, and those of the most likely ``ids`` at its
    place, most likely first; at least -9999."""

    SIGNED: ClassVar[frozenset[str]] = frozenset({"logprob", "logprobs"})

    logprob: float
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


def token_logprobs(logits: F32, token: int, count: int, exp: Callable[[F32], F32]) -> TokenLogprobs:
    """``logits``: ``[V]`` float32, all finite; ``count`` most likely tokens are told of besides
    ``token``. ``exp``: section 5's, ``[V]`` to ``[V]``."""
    largest = logits.max()
    below = math.log(total_weight(exp(logits - largest)))
    ids_K: npt.NDArray[np.intp] = leading(logits, count) if count else np.empty(0, np.intp)

    def logprob(z: np.float32) -> float:
        return max(_FLOOR, round(float(z) - float(largest) - below, _DIGITS))

    return TokenLogprobs(
        logprob=logprob(logits[token]),
        ids=tuple(map(int, ids_K)),
        logprobs=tuple(map(logprob, logits[ids_K])),
    )
