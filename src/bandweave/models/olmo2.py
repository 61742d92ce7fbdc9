"""OLMo 2: norms of what each block gives, and of queries and keys over all heads together.

Ai2 2025 (arXiv:2501.00656).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_model import heads_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, refuse_other_kinds
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_OLMO2 = "Olmo2ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _OLMO2: {
        "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "attention_bias": False, "eos_token_id": 50279,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"olmo2": _OLMO2}
OWN_FIELDS: tuple[str, ...] = ("use_qk_norm", "qk_layernorm")
TENSOR_NAMES: Mapping[str, str] = {
    **DECODER,
    **QK_NORMS,
    "layers.{}.attention_out_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.mlp_out_norm": "model.layers.{}.post_feedforward_layernorm.weight",
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of an OLMo 2 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    refuse_other_kinds(config, FULL)
    bias = fields.flag(config, "attention_bias", False)
    attention = heads_of(config, rope=rope(config), qkv_bias=bias, output_bias=bias, qk_norm="all")
    layer = LayerSpec(attention=attention, mlp=silu_mlp_of(config), form="post")
    return model_of(config, "olmo2", (layer,) * fields.integer(config, "num_hidden_layers"))
