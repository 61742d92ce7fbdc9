"""Mixtures of experts of a ``config.json``: which layers have one, and what their routers do.

Families say which fields they have, and how those are called. Knows no family and no files.
"""

from __future__ import annotations

from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.spec import (
    LARGEST,
    SIGMOID,
    SOFTMAX,
    TWO_LARGEST,
    MixtureSpec,
    RouterSpec,
)
from bandweave.shown import shown


def mixture_of(
    config: Config, *, experts: str, width: str = "moe_intermediate_size", **own: Any
) -> MixtureSpec:
    """A mixture of as many experts, as wide, as the fields of these names say; ``own`` are other
    fields of the spec."""
    count, top_k = fields.integer(config, experts), fields.integer(config, "num_experts_per_tok")
    if top_k > count:
        raise ConfigError(
            f"config.json: num_experts_per_tok is {top_k}, but {experts} is {count}; a token "
            "cannot go to more experts than there are"
        )
    return MixtureSpec(
        num_experts=count, top_k=top_k, intermediate_size=fields.integer(config, width), **own
    )


def grouped_router(config: Config, *, sigmoid: bool) -> RouterSpec:
    """DeepSeek's routers: scores are sigmoids that a correction is added to for the choice (V3), or
    a softmax (V2); experts may be chosen from the best groups alone."""
    groups = fields.integer(config, "n_group", 1)
    top_groups = fields.integer(config, "topk_group", groups)
    if top_groups > groups:
        raise ConfigError(
            f"config.json: topk_group is {top_groups}, but n_group is {groups}; no more groups can "
            "be chosen than there are"
        )
    return RouterSpec(
        scoring=SIGMOID if sigmoid else SOFTMAX,
        correction=sigmoid,
        groups=groups,
        top_groups=top_groups,
        group_score=TWO_LARGEST if sigmoid else LARGEST,
        normalise=fields.flag(config, "norm_topk_prob", sigmoid),
        factor=fields.number(config, "routed_scaling_factor", 1.0),
    )


def further_layers(config: Config) -> int:
    """How many layers behind the others predict further tokens, as DeepSeek's configs have it."""
    return fields.count(config, "num_nextn_predict_layers")


def sparse_by_step(config: Config) -> list[bool]:
    """For each layer whether it has experts, in Qwen's configs: every ``decoder_sparse_step``-th
    one that ``mlp_only_layers`` does not name."""
    dense = config.get("mlp_only_layers")
    if dense is None:
        dense = []
    if not isinstance(dense, list) or not all(type(one) is int for one in dense):
        raise ConfigError(
            f"config.json: mlp_only_layers is {shown(dense)}; it must be a list of layers"
        )
    step = fields.integer(config, "decoder_sparse_step", 1)
    count = fields.integer(config, "num_hidden_layers")
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(count)]


def sparse_after_first(config: Config) -> list[bool]:
    """The same in DeepSeek's: all layers but the first ``first_k_dense_replace``, or as
    ``mlp_layer_types`` lists them."""
    count = fields.integer(config, "num_hidden_layers")
    kinds = fields.texts(config, "mlp_layer_types")
    if not kinds:
        first = fields.count(config, "first_k_dense_replace")
        return [layer >= first for layer in range(count)]
    if len(kinds) != count or not set(kinds) <= {"dense", "sparse"}:
        raise ConfigError(
            f"config.json: mlp_layer_types must name each of the {count} layers 'dense' or 'sparse'"
        )
    return [kind == "sparse" for kind in kinds]
