"""GLM-4.5, 4.6, 4.7 and Air: DeepSeek's mixtures with grouped-query attention.

GLM team 2025 (arXiv:2508.06471).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import DEEPSEEK_MIXTURE, refuse_biases
from bandweave.models.config_mixture import (
    further_layers,
    grouped_router,
    mixture_of,
    sparse_after_first,
)
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, refuse_other_kinds
from bandweave.models.deepseek import TENSOR_NAMES as DEEPSEEK
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import QK_NORMS, Names

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_GLM = "Glm4MoeForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _GLM: {
        "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944,
        "num_hidden_layers": 46, "num_attention_heads": 96, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "attention_bias": False, "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "n_routed_experts": 128,
        "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "norm_topk_prob": True, "use_qk_norm": False, "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"glm4_moe": _GLM}
OWN_FIELDS: tuple[str, ...] = (*DEEPSEEK_MIXTURE, "use_qk_norm")
TENSOR_NAMES: Names = {
    **DEEPSEEK,
    **QK_NORMS,
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of such a ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "mlp_bias")
    refuse_other_kinds(config, FULL)
    attention = heads_of(
        config,
        rope=rope(config, partial=0.5),
        qkv_bias=fields.flag(config, "attention_bias", False),
        qk_norm="head" if fields.flag(config, "use_qk_norm", False) else "",
    )
    dense, sparse = silu_mlp_of(config), sparse_after_first(config)
    width = fields.integer(config, "moe_intermediate_size")
    mixture = mixture_of(
        config,
        experts="n_routed_experts",
        router=grouped_router(config, experts="n_routed_experts", sigmoid=True),
        shared_size=width * fields.count(config, "n_shared_experts"),
    )

    def layer(routes: bool) -> LayerSpec:
        return LayerSpec(attention=attention, mlp=mixture if routes else dense)

    further = layer(True) if further_layers(config) else None
    return model_of(config, "glm4_moe", layers_of(sparse, layer), further=further)
