"""What families' configs have in common: fields of a ``config.json`` as parts of a ModelSpec.

Families say what is their own by keyword. Knows no family and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from bandweave.models import config as fields
from bandweave.models.attention_spec import HeadsSpec
from bandweave.models.config import Config
from bandweave.models.mlp_spec import MlpSpec
from bandweave.models.spec import LayerSpec, ModelSpec

Key = TypeVar("Key", bound=Hashable)


def heads_of(config: Config, **own: Any) -> HeadsSpec:
    """Attention of ``num_attention_heads``; ``own`` are other fields of the spec."""
    return HeadsSpec(
        num_heads=fields.integer(config, "num_attention_heads"),
        num_kv_heads=fields.kv_heads(config),
        head_dim=fields.head_dim(config),
        **own,
    )


def mlp_of(config: Config, **own: Any) -> MlpSpec:
    """A gated MLP of ``intermediate_size``."""
    return MlpSpec(intermediate_size=fields.integer(config, "intermediate_size"), **own)


def silu_mlp_of(config: Config, **own: Any) -> MlpSpec:
    """The same in families whose gate is SiLU; ``ConfigError`` for another ``hidden_act``."""
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")  # two names of one function
    return mlp_of(config, **own)


def layers_of(keys: Sequence[Key], layer: Callable[[Key], LayerSpec]) -> tuple[LayerSpec, ...]:
    """A layer for each key; those of equal keys are one object."""
    known = {key: layer(key) for key in dict.fromkeys(keys)}
    return tuple(known[key] for key in keys)


def model_of(
    config: Config,
    family: str,
    layers: tuple[LayerSpec, ...],
    *,
    eps: str = "rms_norm_eps",
    **own: Any,
) -> ModelSpec:
    """The model of these layers; ``eps`` names the field of its norms."""
    return ModelSpec(
        family=family,
        hidden_size=fields.integer(config, "hidden_size"),
        vocab_size=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings"),
        norm_eps=fields.epsilon(config, eps),
        layers=layers,
        tied_embeddings=fields.flag(config, "tie_word_embeddings", False),
        **own,
    )
