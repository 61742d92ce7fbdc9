"""Routes of docs/numerics.md, section 12, in numpy: which experts a row goes to, and how much.

Knows rows and numbers; knows no programs.

Suffixes: T rows, E experts, G groups, K chosen experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.executors.reference.math import F32, sigmoid, softmax
from bandweave.executors.reference.products import NumbersError

_LEAST_SUM = np.float32(1e-20)
_NOT_FINITE = "a logit or a score of the router is not finite"


@dataclass(frozen=True, kw_only=True)
class Router:
    """The attributes of a ``route`` operation."""

    experts: int
    top_k: int
    scoring: int
    normalise: int
    factor: float
    groups: int
    top_groups: int
    group_score: int
    shared: int


def route(logits_TE: F32, correction_E: F32 | None, router: Router) -> F32:
    """``[T, 2 slots]``: the chosen experts in ascending order, then their weights."""
    if not np.isfinite(logits_TE).all():
        raise NumbersError(_NOT_FINITE)
    own_TE, top_k = logits_TE[:, : router.experts], router.top_k
    scores_TE = {0: softmax, 1: sigmoid, 2: lambda logits: logits}[router.scoring](own_TE)
    choice_TE = scores_TE if correction_E is None else scores_TE + correction_E
    if not np.isfinite(choice_TE).all():
        raise NumbersError(_NOT_FINITE)
    if router.groups > 1:
        choice_TE = _in_best_groups(choice_TE, router)
    chosen_TK = np.sort(_largest(choice_TE, top_k), axis=1)
    weights_TK: F32 = np.take_along_axis(scores_TE, chosen_TK, axis=1).astype(np.float32)
    if router.scoring == 2:
        weights_TK = softmax(weights_TK)
    if router.normalise:
        total_T = np.zeros(len(weights_TK), np.float32)
        for k in range(top_k):  # ascending
            total_T = total_T + weights_TK[:, k]
        divisor_T: F32 = total_T + _LEAST_SUM
        weights_TK = np.divide(weights_TK, divisor_T[:, None])
    weights_TK = weights_TK * np.float32(router.factor)
    if router.shared:
        ones_T1 = np.ones((len(own_TE), 1), np.float32)
        last_T1 = sigmoid(logits_TE[:, router.experts :]) if router.shared == 2 else ones_T1
        chosen_TK = np.concatenate([chosen_TK, np.full_like(chosen_TK[:, :1], router.experts)], 1)
        weights_TK = np.concatenate([weights_TK, last_T1], axis=1)
    routes: F32 = np.concatenate([chosen_TK.astype(np.float32), weights_TK], axis=1)
    return routes


def _largest(values_TE: F32, count: int) -> npt.NDArray[np.intp]:
    """The places of each row's largest numbers, the first ones on ties."""
    return np.argsort(-values_TE, axis=1, kind="stable")[:, :count]


def _in_best_groups(choice_TE: F32, router: Router) -> F32:
    """The scores, minus infinity outside of each row's best groups."""
    choice_TGE = choice_TE.reshape(len(choice_TE), router.groups, -1)
    ordered_TGE = -np.sort(-choice_TGE, axis=2)
    score_TG = ordered_TGE[:, :, 0]
    if router.group_score == 1:
        score_TG = score_TG + ordered_TGE[:, :, 1]
    kept_TG = np.zeros(score_TG.shape, np.bool_)
    np.put_along_axis(kept_TG, _largest(score_TG, router.top_groups), True, axis=1)
    lowest = np.float32(-np.inf)
    return np.where(kept_TG[:, :, None], choice_TGE, lowest).reshape(choice_TE.shape)
