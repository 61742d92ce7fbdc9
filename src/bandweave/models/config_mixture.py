"""Reads the fields of a ``config.json`` that say which layers are mixtures of experts, and what
their routers do. Knows no families.
"""

from __future__ import annotations

from dataclasses import replace

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.spec import LayerSpec, MixtureSpec, Mlp
from bandweave.shown import shown


def experts(config: Config, name: str) -> int:
    """How many routed experts there are."""
    return fields.integer(config, name)


def chosen(config: Config, experts: int) -> int:
    """How many experts each token goes to; no more than there are."""
    top_k = fields.integer(config, "num_experts_per_tok")
    if top_k > experts:
        raise ConfigError(
            f"config.json: num_experts_per_tok is {top_k}, but there are {experts} experts"
        )
    return top_k


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer of a Qwen mixture has experts: each ``decoder_sparse_step``-th one that
    ``mlp_only_layers`` does not name."""
    dense = config.get("mlp_only_layers")
    if dense is not None and (
        not isinstance(dense, list) or not all(isinstance(one, int) for one in dense)
    ):
        raise ConfigError(
            f"config.json: mlp_only_layers is {shown(dense)}; it must be a list of layers"
        )
    step = fields.integer(config, "decoder_sparse_step", 1)
    return layer not in (dense or ()) and (layer + 1) % step == 0


def with_mlps(layers: tuple[LayerSpec, ...], mlps: tuple[Mlp, ...]) -> tuple[LayerSpec, ...]:
    """Layers with other MLPs; those that are alike are one object."""
    made: dict[tuple[int, int], LayerSpec] = {}
    result = []
    for layer, mlp in zip(layers, mlps, strict=True):
        key = id(layer), id(mlp)
        if key not in made:
            made[key] = replace(layer, mlp=mlp)
        result.append(made[key])
    return tuple(result)


__all__ = ["MixtureSpec", "chosen", "experts", "is_sparse", "with_mlps"]
