"""Qwen2-MoE and Qwen3-MoE: mixtures of experts in the text of Qwen2 and Qwen3.

Qwen team 2024 (arXiv:2407.10671), 2025 (arXiv:2505.09388).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_mixture import (
    mixture_of,
    refuse_shared,
    sparse_by_step,
    with_num_experts,
)
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import (
    FULL,
    SLIDING,
    kinds_up_to_a_layer,
    refuse_other_kinds,
    windows,
)
from bandweave.models.mlp_spec import RouterSpec
from bandweave.models.qwen_names import SHARED_EXPERT
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS, Names

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_QWEN2, _QWEN3 = "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"

#: What transformers' config classes take for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _QWEN2: {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 4096,
        "max_window_layers": 28, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60,
        "norm_topk_prob": False, "qkv_bias": True, "eos_token_id": None,
    },
    _QWEN3: {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "attention_bias": False, "use_sliding_window": False,
        "sliding_window": 4096, "decoder_sparse_step": 1, "moe_intermediate_size": 768,
        "num_experts_per_tok": 8, "num_experts": 128, "norm_topk_prob": False,
        "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"qwen2_moe": _QWEN2, "qwen3_moe": _QWEN3}
OWN_FIELDS: tuple[str, ...] = (
    "qkv_bias", "num_experts", "num_local_experts", "use_qk_norm", "qk_layernorm",
    "decoder_sparse_step", "mlp_only_layers", "shared_expert_intermediate_size",
)  # fmt: skip
TENSOR_NAMES: Names = {**DECODER, **QK_NORMS, **SHARED_EXPERT}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Qwen mixture's ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(with_num_experts(config), DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    dense, own_rope = silu_mlp_of(config), rope(config)
    router = RouterSpec(normalise=fields.flag(config, "norm_topk_prob", False))
    own: dict[str, Any] = {}
    if architecture == _QWEN2:
        shared = fields.integer(config, "shared_expert_intermediate_size")
        mixture = mixture_of(
            config, experts="num_experts", router=router, shared_size=shared, shared_gate=True
        )
        own["qkv_bias"] = fields.flag(config, "qkv_bias", True)
        kinds = kinds_up_to_a_layer(config)
    else:
        refuse_shared(config, "shared_expert_intermediate_size")
        mixture = mixture_of(config, experts="num_experts", router=router)
        bias = fields.flag(config, "attention_bias", False)
        own.update(qkv_bias=bias, output_bias=bias, qk_norm="head")
        used = fields.flag(config, "use_sliding_window", False)
        refuse_other_kinds(config, SLIDING if used else FULL)
        kinds = [SLIDING if used else FULL] * fields.integer(config, "num_hidden_layers")

    def layer(key: tuple[int | None, bool]) -> LayerSpec:
        window, sparse = key
        attention = heads_of(config, rope=own_rope, window=window, **own)
        return LayerSpec(attention=attention, mlp=mixture if sparse else dense)

    keys = list(zip(windows(config, kinds), sparse_by_step(config), strict=True))
    return model_of(config, "qwen_moe", layers_of(keys, layer))
