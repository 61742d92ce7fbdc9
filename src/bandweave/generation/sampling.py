"""Chooses the next token from a row of logits: docs/numerics.md, section 7, in numpy.

The same logits, parameters and position give the same token on every machine: sums are in a fixed
order, ties go to the lowest id, and randomness comes from a counter. Knows no nodes and no text.
Legend: V vocabulary, K kept candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bandweave.executors.reference import math as reference_math
from bandweave.generation.philox import uniform

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Tokens = Sequence[int] | npt.NDArray[np.integer]

CHUNK = 256  # ids whose weights are summed together
_FIRST_PREFIX = 1024  # candidates that top-p sorts at first; nearly always enough


class NoTokenError(ValueError):
    """Logits from which no token can be chosen. It is the trouble of one answer alone."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How an answer's tokens are chosen, and where it ends. ``ValueError`` for what is no choice.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 keep all candidates;
    penalties of 1 (repetition) and 0 (the others) change nothing. ``max_tokens`` None: as many as
    the context holds. ``stop``: texts that end the answer and are not part of it. ``biases[i]`` is
    added to the logit of token ``biased[i]``.
    """

    SIGNED: ClassVar[frozenset[str]] = frozenset(
        {"frequency_penalty", "presence_penalty", "biases"}
    )

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    biased: tuple[int, ...] = ()
    biases: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # Far below 1e-8 logits over temperature would leave float32; it is greedy by then anyway.
        if self.temperature != 0:
            _check_number("temperature", self.temperature, 1e-8, 1e4, "0 (greedy), or ")
        _check_integer("top_k", self.top_k, 0, (1 << 31) - 1)
        _check_number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise ValueError("top_p is 0; it must be above 0 and at most 1")
        _check_number("min_p", self.min_p, 0.0, 1.0)
        _check_number("repetition_penalty", self.repetition_penalty, 1e-4, 1e4)
        _check_number("frequency_penalty", self.frequency_penalty, -1e4, 1e4)
        _check_number("presence_penalty", self.presence_penalty, -1e4, 1e4)
        _check_integer("seed", self.seed, 0, (1 << 64) - 1)
        if self.max_tokens is not None:
            _check_integer("max_tokens", self.max_tokens, 1, (1 << 31) - 1)
        if not isinstance(self.stop, tuple) or not all(
            isinstance(text, str) and text for text in self.stop
        ):
            raise ValueError(f"stop is {self.stop!r}; it must be a tuple of texts, none empty")
        self._check_biases()

    def _check_biases(self) -> None:
        if len(self.biased) != len(self.biases) or len(set(self.biased)) != len(self.biased):
            raise ValueError(
                f"{len(self.biases)} biases for {len(set(self.biased))} tokens; give each token one"
            )
        for token, bias in zip(self.biased, self.biases, strict=True):
            _check_integer("a token with a bias", token, 0, (1 << 31) - 1)
            _check_number(f"the bias of token {token}", bias, -1e4, 1e4)

    @property
    def needs_best_only(self) -> bool:
        """Whether the best token alone decides: greedy, and nothing changes the logits."""
        return self.temperature == 0 and not self.has_penalties and not self.biased

    @property
    def has_penalties(self) -> bool:
        neutral = (1.0, 0.0, 0.0)
        own = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return own != neutral


def sample(
    logits: F32,
    params: SamplingParams,
    prompt_tokens: Tokens,
    answer_tokens: Tokens,
    position: int,
    choice: int = 0,
    exp: Callable[[F32], F32] = reference_math.exp,
) -> int:
    """The id of the token at ``position`` of its sequence (prompt and answer, from 0).

    ``logits``: ``[V]`` float32 in ascending id, unchanged; minus infinity rules a token out.
    ``choice``: which of several answers to one prompt. ``exp``: section 5's, ``[K]`` to ``[K]``.
    ``NoTokenError`` for NaN, and where no token is left to choose.
    """
    if logits.ndim != 1 or logits.dtype != np.float32 or not logits.size:
        raise ValueError(f"logits are {logits.dtype} {list(logits.shape)}, not one float32 row")
    z_V = biased(penalised(logits, params, prompt_tokens, answer_tokens), params)
    best = int(np.argmax(z_V))  # the first NaN, if there is one, else the first of the largest
    if not z_V[best] > -np.inf:
        raise NoTokenError(f"the logits of position {position} have a NaN, or rule out every token")
    if params.temperature == 0:
        return best
    u = uniform(params.seed, choice, position)
    with np.errstate(over="ignore", under="ignore"):
        z_V = z_V / np.float32(params.temperature)
        largest = z_V[best]
        if not np.isfinite(largest):
            raise NoTokenError(f"the largest logit of position {position} is not finite")
        return _draw(z_V, largest, params, u, exp)


def penalised(
    logits: F32, params: SamplingParams, prompt_tokens: Tokens, answer_tokens: Tokens
) -> F32:
    """The logits ``[V]`` after the penalties; the same array where there are none."""
    if not params.has_penalties:
        return logits
    answer, counts = np.unique(_ids(answer_tokens, logits.size), return_counts=True)
    seen = np.union1d(_ids(prompt_tokens, logits.size), answer)
    z_V = logits.copy()
    z = z_V[seen]
    repetition = np.float32(params.repetition_penalty)
    with np.errstate(over="ignore", under="ignore"):
        z_V[seen] = np.where(z > 0, z / repetition, z * repetition)
        z = z_V[answer] - np.float32(params.frequency_penalty) * counts.astype(np.float32)
        z_V[answer] = z - np.float32(params.presence_penalty)
    return z_V


def biased(logits: F32, params: SamplingParams) -> F32:
    """The logits ``[V]`` with the biases; the same array where there are none. ``ValueError`` for
    a token that there is none of."""
    if not params.biased:
        return logits
    z_V = logits.copy()
    z_V[_ids(params.biased, logits.size)] += np.array(params.biases, np.float32)
    return z_V


def _draw(
    z_V: F32, largest: np.float32, params: SamplingParams, u: float, exp: Callable[[F32], F32]
) -> int:
    """Steps 3 and 4 of section 7, after the temperature."""
    size = z_V.size
    if 0 < params.top_k < size:
        ids_K = leading(z_V, params.top_k)
        w_K = exp(z_V[ids_K] - largest)
    else:
        ids_K = np.arange(size)
        w_K = exp(z_V - largest)
    if params.top_p < 1:
        threshold = params.top_p * _running_sums(_by_id(size, ids_K, w_K))[-1]
        if len(ids_K) == size:
            ids_K = _top_p_of_all(z_V, w_K, threshold)
            w_K = w_K[ids_K]
        else:
            kept = _prefix(w_K, threshold) or len(w_K)
            ids_K, w_K = ids_K[:kept], w_K[:kept]
    if params.min_p > 0:
        keep_K = w_K >= np.float32(params.min_p)
        ids_K, w_K = ids_K[keep_K], w_K[keep_K]
    weights_CX = _by_id(size, ids_K, w_K)
    sums_C = _running_sums(weights_CX)
    target = u * sums_C[-1]
    chunk = int(np.searchsorted(sums_C, target, side="right"))  # the first sum above the target
    if chunk < len(sums_C):
        before = sums_C[chunk - 1] if chunk else 0.0
        inside_X = np.add.accumulate(np.concatenate([[before], weights_CX[chunk]]))[1:]
        above = inside_X > target
        if above.any():
            return chunk * CHUNK + int(np.argmax(above))
    # Rounding left none: the last kept id, of those that were not ruled out.
    return int(ids_K[z_V[ids_K] > -np.inf].max())


def leading(z_V: F32, count: int) -> npt.NDArray[np.intp]:
    """The first ``count`` ids in the order of candidates: z descending, then id ascending."""
    ids = np.arange(z_V.size)
    if count < z_V.size:
        floor = np.partition(z_V, z_V.size - count)[z_V.size - count]
        ids = np.flatnonzero(z_V >= floor)  # more than count where some tie with the last
    order = np.argsort(-z_V[ids], kind="stable")  # stable: ids stay ascending in a tie
    return ids[order[:count]]


def _top_p_of_all(z_V: F32, w_V: F32, threshold: float) -> npt.NDArray[np.intp]:
    """The ids, in order, of the shortest prefix of all candidates that reaches the threshold."""
    count = _FIRST_PREFIX
    while True:
        ids = leading(z_V, count)
        if kept := _prefix(w_V[ids], threshold):
            return ids[:kept]
        if len(ids) == z_V.size:
            return ids
        count *= 16


def _prefix(w_K: F32, threshold: float) -> int:
    """How many weights it takes, in order, for their sum to reach the threshold; 0: never."""
    reached = np.add.accumulate(w_K, dtype=np.float64) >= threshold
    return int(np.argmax(reached)) + 1 if reached.any() else 0


def total_weight(w_V: F32) -> float:
    """The sum of weights ``[V]`` in ascending id, in the order of section 7."""
    return float(_running_sums(_by_id(w_V.size, np.arange(w_V.size), w_V))[-1])


def _by_id(size: int, ids_K: npt.NDArray[np.intp], w_K: F32) -> F64:
    """The weights at their ids, in rows of a chunk each; +0, which no sum shows, elsewhere."""
    weights = np.zeros(-(-size // CHUNK) * CHUNK)
    weights[ids_K] = w_K
    return weights.reshape(-1, CHUNK)


def _running_sums(weights_CX: F64) -> F64:
    """The sum of all weights up to the end of each chunk: chunks first, then over chunks.

    ``accumulate`` adds one after the other, where ``sum`` would add in pairs.
    """
    sums_C = np.add.accumulate(weights_CX, axis=1)[:, -1]
    return np.add.accumulate(sums_C)


def _ids(tokens: Tokens, size: int) -> npt.NDArray[np.intp]:
    ids = np.asarray(tokens, dtype=np.intp)
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        raise ValueError(f"token ids from {ids.min()} to {ids.max()}, but there are {size} logits")
    return ids


def _check_number(name: str, value: float, low: float, high: float, prefix: str = "") -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # false for NaN too
        raise ValueError(f"{name} is {value!r}; it must be {prefix}from {low:g} to {high:g}")


def _check_integer(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be an integer from {low} to {high}")
