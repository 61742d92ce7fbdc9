"""Qwen3, dense: Llama's text with a norm on each query and key head.

Qwen team 2025 (arXiv:2505.09388).
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
from bandweave.models.config_window import kinds_from_a_layer_on, windows
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_QWEN3 = "Qwen3ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _QWEN3: {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False,
        "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"qwen3": _QWEN3}
OWN_FIELDS: tuple[str, ...] = ("use_qk_norm", "qk_layernorm")
TENSOR_NAMES = {**DECODER, **QK_NORMS}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Qwen3 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    bias = fields.flag(config, "attention_bias", False)
    own_rope, mlp = rope(config), silu_mlp_of(config)

    def layer(window: int | None) -> LayerSpec:
        return LayerSpec(
            attention=heads_of(
                config,
                rope=own_rope,
                window=window,
                qkv_bias=bias,
                output_bias=bias,
                qk_norm="head",
            ),
            mlp=mlp,
        )

    kinds = kinds_from_a_layer_on(config)
    return model_of(config, "qwen3", layers_of(windows(config, kinds), layer))
