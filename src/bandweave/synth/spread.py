"""How random weights are spread: so that activations stay near 1 and routers choose evenly.

Knows specs; knows no files.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from bandweave.models.graph_op import Split, WeightSpec
from bandweave.models.mlp_spec import SIGMOID, SOFTMAX_OF_CHOSEN, MixtureSpec
from bandweave.models.spec import ModelSpec

_SMALL = 0.02  # of what is added to or multiplied with numbers near 1


class Spread(NamedTuple):
    """A normal distribution of weights."""

    center: float
    deviation: float


#: Vectors of gated delta nets: their norm has no offset; states are forgotten over some ten rows.
_DELTA = {
    "delta_norm": Spread(1.0, _SMALL), "delta_rate": Spread(-2.0, 1.0),
    "delta_step": Spread(0.0, _SMALL),
}  # fmt: skip


def spread_of(spec: ModelSpec, weight: WeightSpec) -> Spread:
    """That of a tensor's weights.

    Matrices have the standard deviation ``1 / sqrt(inputs)``, a router's as well: its logits have
    the variance 1. Those that add to the residual are smaller with depth, and experts' as much
    larger or smaller as the weights of those that a token goes through ask for. Norms multiply by
    1 +- 0.02; biases and routers' corrections are 0 +- 0.02, sinks 0 +- 1, as scores are.
    """
    part = weight.name.rpartition(".")[2]
    if len(weight.shape) == 1:
        if part == "sinks":
            return Spread(0.0, 1.0)
        if part in _DELTA:
            return _DELTA[part]
        is_norm = part not in ("bias", "correction")
        return Spread(1.0 - spec.norm_offset if is_norm else 0.0, _SMALL)
    if weight.name == "embed_tokens" and not spec.tied_embeddings:
        return Spread(0.0, 1.0)
    deviation = 1.0 / math.sqrt(weight.shape[1])
    if weight.split is Split.SHARDED_TO_ALL:  # 2 * layers of these add up in the residual
        deviation /= math.sqrt(2 * spec.num_layers)
        layer = weight.name.split(".")[1]
        mlp = spec.layers[int(layer)].mlp
        if isinstance(mlp, MixtureSpec) and "expert" in weight.name:
            deviation /= math.sqrt(2.0 if mlp.shared_size else 1.0)
            deviation /= 1.0 if "shared" in weight.name else weighing(mlp)
    return Spread(0.0, deviation)


@lru_cache(maxsize=64)
def weighing(mixture: MixtureSpec) -> float:
    """The square root of the sum of the squared weights of the experts that a token goes through,
    where logits are the quantiles of the normal distribution."""
    normal, count = NormalDist(), mixture.num_experts
    logits = [normal.inv_cdf((index + 0.5) / count) for index in range(count)]
    router = mixture.router
    if router.scoring == SIGMOID:
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    else:
        among = logits[-mixture.top_k :] if router.scoring == SOFTMAX_OF_CHOSEN else logits
        total = math.fsum(map(math.exp, among))
        scores = [math.exp(logit) / total for logit in logits]
    chosen = scores[-mixture.top_k :]
    over = math.fsum(chosen) if router.normalise else 1.0
    return router.factor * math.sqrt(math.fsum(score * score for score in chosen)) / over
