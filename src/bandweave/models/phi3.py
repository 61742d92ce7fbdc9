"""Phi-3, 3.5 and 4: Llama's text, with queries, keys and values stored as one matrix.

Microsoft 2024 (arXiv:2404.14219, arXiv:2412.08905).
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
from bandweave.models.config_window import FULL, SLIDING, refuse_other_kinds, windows
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, FUSED_GATE_UP, Names, fused

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_PHI3 = "Phi3ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _PHI3: {
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
        "hidden_act": "silu", "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "sliding_window": None, "eos_token_id": 32000,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"phi3": _PHI3}
OWN_FIELDS: tuple[str, ...] = ()
TENSOR_NAMES: Names = {
    **DECODER,
    **FUSED_GATE_UP,
    **fused(
        "model.layers.{}.self_attn.qkv_proj.weight",
        "layers.{}.q_proj", "layers.{}.k_proj", "layers.{}.v_proj",
    ),
}  # fmt: skip

_LONGROPE = ("su", "yarn")  # what the first configs of the family called it


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Phi-3 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = _renamed(fields.with_defaults(config, DEFAULTS[architecture]))
    refuse_biases(config, "attention_bias", "mlp_bias")
    own_rope, mlp = rope(config, partial=1.0), silu_mlp_of(config)
    slides = config.get("sliding_window") is not None
    kind = SLIDING if slides else FULL
    refuse_other_kinds(config, kind)

    def layer(window: int | None) -> LayerSpec:
        return LayerSpec(attention=heads_of(config, rope=own_rope, window=window), mlp=mlp)

    kinds = [kind] * fields.integer(config, "num_hidden_layers")
    return model_of(config, "phi3", layers_of(windows(config, kinds), layer))


def _renamed(config: Config) -> dict[str, Any]:
    """The config with longrope under its later name."""
    result = dict(config)
    for name in ("rope_scaling", "rope_parameters"):
        parameters = dict(fields.table(config, name))
        for field in ("type", "rope_type"):
            if parameters.get(field) in _LONGROPE:
                parameters[field] = "longrope"
        if parameters:
            result[name] = parameters
    return result
