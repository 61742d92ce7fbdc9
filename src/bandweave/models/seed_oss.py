"""Seed-OSS: Llama's text with biases of queries, keys and values.

ByteDance Seed team 2025, the model card of Seed-OSS-36B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_model import heads_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, refuse_other_kinds
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_SEED_OSS = "SeedOssForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _SEED_OSS: {
        "vocab_size": 155136, "hidden_size": 4096, "intermediate_size": 27648,
        "num_hidden_layers": 64, "num_attention_heads": 80, "num_key_value_heads": 8,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 524288,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": True,
        "attention_out_bias": False, "mlp_bias": False, "eos_token_id": 2,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"seed_oss": _SEED_OSS}
OWN_FIELDS: tuple[str, ...] = ()
TENSOR_NAMES = DECODER


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Seed-OSS ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_other_kinds(config, FULL)
    layer = LayerSpec(
        attention=heads_of(
            config,
            rope=rope(config),
            qkv_bias=fields.flag(config, "attention_bias", True),
            output_bias=fields.flag(config, "attention_out_bias", False),
        ),
        mlp=silu_mlp_of(config, bias=fields.flag(config, "mlp_bias", False)),
    )
    return model_of(config, "seed_oss", (layer,) * fields.integer(config, "num_hidden_layers"))
