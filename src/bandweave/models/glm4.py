"""GLM-4-0414, dense: norms on both sides of each block, and rope of half of each head.

GLM team 2024 (arXiv:2406.12793).
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
from bandweave.models.tensor_names import DECODER, FUSED_GATE_UP, Names

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_GLM4 = "Glm4ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _GLM4: {
        "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 13696,
        "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-07, "tie_word_embeddings": False, "attention_bias": True,
        "eos_token_id": [151329, 151336, 151338],
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"glm4": _GLM4}
OWN_FIELDS: tuple[str, ...] = ()
TENSOR_NAMES: Names = {
    **DECODER,
    **FUSED_GATE_UP,
    "layers.{}.attention_out_norm": "model.layers.{}.post_self_attn_layernorm.weight",
    "layers.{}.mlp_out_norm": "model.layers.{}.post_mlp_layernorm.weight",
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a GLM-4 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    refuse_other_kinds(config, FULL)
    attention = heads_of(
        config,
        rope=rope(config, partial=0.5, interleaved=True),
        qkv_bias=fields.flag(config, "attention_bias", True),
    )
    layer = LayerSpec(attention=attention, mlp=silu_mlp_of(config), form="both")
    return model_of(config, "glm4", (layer,) * fields.integer(config, "num_hidden_layers"))
