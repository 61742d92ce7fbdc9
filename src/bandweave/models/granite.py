"""Granite 3, dense: Llama's text with factors of embeddings, residuals, scores and logits.

IBM 2024, the Granite 3.0 report.
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

_GRANITE = "GraniteForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _GRANITE: {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0, "eos_token_id": 2,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"granite": _GRANITE}
OWN_FIELDS: tuple[str, ...] = (
    "embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier",
)  # fmt: skip
TENSOR_NAMES = DECODER


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Granite ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_other_kinds(config, FULL)
    bias = fields.flag(config, "attention_bias", False)
    layer = LayerSpec(
        attention=heads_of(
            config,
            rope=rope(config),
            scale=fields.factor(config, "attention_multiplier"),
            qkv_bias=bias,
            output_bias=bias,
        ),
        mlp=silu_mlp_of(config, bias=fields.flag(config, "mlp_bias", False)),
        residual_factor=fields.factor(config, "residual_multiplier"),
    )
    return model_of(
        config,
        "granite",
        (layer,) * fields.integer(config, "num_hidden_layers"),
        embedding_factor=fields.factor(config, "embedding_multiplier"),
        logit_factor=1 / fields.factor(config, "logits_scaling"),
    )
