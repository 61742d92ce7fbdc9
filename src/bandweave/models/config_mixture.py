"""Mixtures of experts of a ``config.json``: which layers have one, and what their routers do.

Families say which fields they have, and how those are called. Knows no family and no files.
"""

from __future__ import annotations

from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.mlp_spec import (
    LARGEST,
    SIGMOID,
    SOFTMAX,
    TWO_LARGEST,
    MixtureSpec,
    RouterSpec,
)
from bandweave.shown import shown


def mixture_of(
    config: Config,
    *,
    experts: str,
    width: str = "moe_intermediate_size",
    top_k: str = "num_experts_per_tok",
    **own: Any,
) -> MixtureSpec:
    """A mixture of as many experts, as wide, as the fields of these names say; ``own`` are other
    fields of the spec."""
    count, chosen = _experts(config, experts, top_k)
    return MixtureSpec(
        num_experts=count, top_k=chosen, intermediate_size=fields.integer(config, width), **own
    )


def with_num_experts(config: Config) -> Config:
    """Qwen's config, whose ``num_experts`` newer releases save as ``num_local_experts``."""
    if config.get("num_experts") is None and config.get("num_local_experts") is not None:
        return {**config, "num_experts": config["num_local_experts"]}
    return config


def _experts(config: Config, experts: str, top_k: str) -> tuple[int, int]:
    """How many experts there are, and how many of them a token goes to."""
    count, chosen = fields.integer(config, experts), fields.integer(config, top_k)
    if chosen > count:
        raise ConfigError(
            f"config.json: {top_k} is {chosen}, but {experts} is {count}; a token "
            "cannot go to more experts than there are"
        )
    return count, chosen


def refuse_shared(config: Config, *names: str) -> None:
    """Refuses shared experts in a family whose class has none, whatever the config says."""
    for name in names:
        if config.get(name) not in (None, 0, False):
            raise ConfigError(
                f"config.json: {name} is {shown(config[name])}, but models of this family have no "
                "shared expert"
            )


def grouped_router(config: Config, *, experts: str, sigmoid: bool) -> RouterSpec:
    """DeepSeek's routers: scores are sigmoids that a correction is added to for the choice (V3), or
    a softmax (V2); experts, of which the field of that name says how many there are, may be chosen
    from the best groups alone."""
    score, method = ("sigmoid", "noaux_tc") if sigmoid else ("softmax", None)
    fields.require(config, "scoring_func", (score,), score)
    if method is not None:
        fields.require(config, "topk_method", (method,), method)
    count, top_k = _experts(config, experts, "num_experts_per_tok")
    groups = fields.integer(config, "n_group", 1)
    if count % groups:
        raise ConfigError(
            f"config.json: n_group is {groups}, but {experts} is {count}, which is no multiple of "
            "it; groups have as many experts each"
        )
    top_groups = fields.integer(config, "topk_group", groups)
    if top_groups > groups:
        raise ConfigError(
            f"config.json: topk_group is {top_groups}, but n_group is {groups}; no more groups can "
            "be chosen than there are"
        )
    if top_k > top_groups * (count // groups):
        raise ConfigError(
            f"config.json: num_experts_per_tok is {top_k}, but topk_group groups have "
            f"{top_groups * (count // groups)} experts together; more cannot be chosen"
        )
    return RouterSpec(
        scoring=SIGMOID if sigmoid else SOFTMAX,
        correction=sigmoid,
        groups=groups,
        top_groups=top_groups,
        group_score=TWO_LARGEST if sigmoid else LARGEST,
        normalise=fields.flag(config, "norm_topk_prob", sigmoid),
        factor=fields.factor(config, "routed_scaling_factor", 1.0),
    )


def further_layers(config: Config, silent: int = 0) -> int:
    """How many layers behind the others predict further tokens, as DeepSeek's configs have it;
    ``silent`` where they do not say."""
    name = "num_nextn_predict_layers"
    return silent if config.get(name) is None else fields.count(config, name)


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
    if not all(0 <= layer < count for layer in dense):
        raise ConfigError(
            f"config.json: mlp_only_layers is {shown(dense)}, but layers are numbered 0 to "
            f"{count - 1} (num_hidden_layers)"
        )
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(count)]


def sparse_after_first(config: Config) -> list[bool]:
    """The same in DeepSeek's: all layers but the first ``first_k_dense_replace``, or as
    ``mlp_layer_types`` lists them."""
    count = fields.integer(config, "num_hidden_layers")
    kinds = fields.texts(config, "mlp_layer_types")
    if not kinds:
        first = fields.count(config, "first_k_dense_replace")
        sparse = [layer >= first for layer in range(count)]
        _check_frequency(config, sparse)
        return sparse
    if len(kinds) != count or not set(kinds) <= {"dense", "sparse"}:
        raise ConfigError(
            f"config.json: mlp_layer_types must name each of the {count} layers "
            "(num_hidden_layers) 'dense' or 'sparse'"
        )
    sparse = [kind == "sparse" for kind in kinds]
    _check_frequency(config, sparse)
    return sparse


def _check_frequency(config: Config, sparse: list[bool]) -> None:
    """Refuses a ``moe_layer_freq`` that says otherwise: every so many layers have experts, or a 1
    for each layer that has and a 0 for the others. transformers reads other fields in its place."""
    given = config.get("moe_layer_freq")
    if given is None:
        return
    if type(given) is int and given > 0:
        says = [routes and layer % given == 0 for layer, routes in enumerate(sparse)]
    elif isinstance(given, list) and all(type(one) is int and one in (0, 1) for one in given):
        says = [bool(one) for one in given]
    else:
        raise ConfigError(
            f"config.json: moe_layer_freq is {shown(given)}; it must be a positive integer, or a "
            "list with a 0 or a 1 for each layer"
        )
    if says != sparse:
        raise ConfigError(
            f"config.json: moe_layer_freq is {shown(given)}, which first_k_dense_replace, "
            f"mlp_layer_types and the {len(sparse)} layers of num_hidden_layers contradict; is it "
            "the original config?"
        )
