"""OLMo 2 and 3: norms of what each block gives, and of queries and keys over all heads together;
most layers of OLMo 3 have a window, and a rope that is not scaled.

Ai2 2025 (arXiv:2501.00656, and the OLMo 3 report).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope, rope_of_kind
from bandweave.models.config_window import (
    FULL,
    SLIDING,
    kinds_by_turns,
    refuse_other_kinds,
    windows,
)
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_OLMO2, _OLMO3 = "Olmo2ForCausalLM", "Olmo3ForCausalLM"

_BOTH: Mapping[str, Any] = {
    "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "eos_token_id": 50279,
}  # fmt: skip

#: What transformers' config classes take for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _OLMO2: _BOTH,
    _OLMO3: {**_BOTH, "sliding_window": 4096},
}

MODEL_TYPES: Mapping[str, str] = {"olmo2": _OLMO2, "olmo3": _OLMO3}
OWN_FIELDS: tuple[str, ...] = ("use_qk_norm", "qk_layernorm")
TENSOR_NAMES: Mapping[str, str] = {
    **DECODER,
    **QK_NORMS,
    "layers.{}.attention_out_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.mlp_out_norm": "model.layers.{}.post_feedforward_layernorm.weight",
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of an OLMo ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    bias, mlp = fields.flag(config, "attention_bias", False), silu_mlp_of(config)

    def layer(key: tuple[RopeSpec, int | None]) -> LayerSpec:
        own_rope, window = key
        attention = heads_of(
            config, rope=own_rope, window=window, qkv_bias=bias, output_bias=bias, qk_norm="all"
        )
        return LayerSpec(attention=attention, mlp=mlp, form="post")

    if architecture == _OLMO2:
        refuse_other_kinds(config, FULL)
        kinds = [FULL] * fields.integer(config, "num_hidden_layers")
        ropes = {FULL: rope(config)}
    else:
        kinds = kinds_by_turns(config, 4)
        ropes = {
            # The older spelling's theta is that of layers without a window alone.
            FULL: rope_of_kind(config, FULL, theta=500000.0, field="rope_theta", scaled=True),
            SLIDING: rope_of_kind(config, SLIDING, theta=500000.0, field=None),
        }
    keys = list(zip((ropes[kind] for kind in kinds), windows(config, kinds), strict=True))
    return model_of(config, "olmo2", layers_of(keys, layer))
