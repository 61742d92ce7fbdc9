"""Cohere 2 (Command R7B and A): attention and MLP side by side, rope where there is a window.

Cohere team 2025 (arXiv:2504.00698).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import SLIDING, kinds_by_turns, windows
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_COHERE2 = "Cohere2ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _COHERE2: {
        "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528,
        "logit_scale": 0.0625, "num_hidden_layers": 40, "num_attention_heads": 64,
        "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5, "tie_word_embeddings": True, "attention_bias": False,
        "sliding_window": 4096, "eos_token_id": 255001,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"cohere2": _COHERE2}
OWN_FIELDS: tuple[str, ...] = ("logit_scale", "sliding_window_pattern")
TENSOR_NAMES = DECODER


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Cohere 2 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    bias = fields.flag(config, "attention_bias", False)
    own_rope, mlp = rope(config, interleaved=True), silu_mlp_of(config)

    def layer(key: tuple[str, int | None]) -> LayerSpec:
        kind, window = key
        attention = heads_of(
            config,
            rope=own_rope if kind == SLIDING else None,
            window=window,
            qkv_bias=bias,
            output_bias=bias,
        )
        return LayerSpec(attention=attention, mlp=mlp, form="parallel")

    kinds = kinds_by_turns(config, 4)
    return model_of(
        config,
        "cohere2",
        layers_of(list(zip(kinds, windows(config, kinds), strict=True)), layer),
        eps="layer_norm_eps",
        norm="layer",
        logit_factor=fields.factor(config, "logit_scale"),
    )
