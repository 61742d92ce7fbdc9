"""Qwen3-Next: three layers with a recurrent state to one with a cache, and mixtures of experts.

Qwen team 2025; its states are gated delta nets (Yang et al. 2024, arXiv:2412.06464).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.attention_spec import LinearSpec
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_hybrid import attention_of, kinds_of
from bandweave.models.config_mixture import (
    further_layers,
    mixture_of,
    sparse_by_step,
    with_num_experts,
)
from bandweave.models.config_model import layers_of, model_of, silu_mlp_of
from bandweave.models.config_window import FULL
from bandweave.models.mlp_spec import RouterSpec
from bandweave.models.qwen_names import DELTA_NET, GATED_HEADS, SHARED_EXPERT, with_further
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import Names, fused

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_NEXT = "Qwen3NextForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _NEXT: {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "hidden_act": "silu", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "decoder_sparse_step": 1,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "num_experts_per_tok": 10, "num_experts": 512, "norm_topk_prob": True,
        "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"qwen3_next": _NEXT}
OWN_FIELDS: tuple[str, ...] = (
    "num_experts", "num_local_experts", "use_qk_norm", "qk_layernorm", "decoder_sparse_step",
    "mlp_only_layers", "shared_expert_intermediate_size",
)  # fmt: skip


def _key_heads(layer: LayerSpec) -> int:
    assert isinstance(layer.attention, LinearSpec)
    return layer.attention.key_heads


_LINEAR = "model.layers.{}.linear_attn"
TENSOR_NAMES: Names = with_further(
    {
        **GATED_HEADS,
        **SHARED_EXPERT,
        **DELTA_NET,
        **fused(
            f"{_LINEAR}.in_proj_qkvz.weight",
            *(f"layers.{{}}.delta_{part}_proj" for part in ("q", "k", "v", "z")),
            groups=_key_heads,
        ),
        **fused(
            f"{_LINEAR}.in_proj_ba.weight",
            *(f"layers.{{}}.delta_{part}_proj" for part in ("write", "decay")),
            groups=_key_heads,
        ),
    }
)


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Qwen3-Next ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(with_num_experts(config), DEFAULTS[architecture])
    attention, dense = attention_of(config), silu_mlp_of(config)
    sparse = sparse_by_step(config) if config["num_experts"] else [False] * len(kinds_of(config))
    mixture = dense
    if any(sparse):
        mixture = mixture_of(
            config,
            experts="num_experts",
            router=RouterSpec(normalise=fields.flag(config, "norm_topk_prob", True)),
            shared_size=fields.integer(config, "shared_expert_intermediate_size"),
            shared_gate=True,
        )

    def layer(key: tuple[str, bool]) -> LayerSpec:
        kind, routes = key
        return LayerSpec(attention=attention[kind], mlp=mixture if routes else dense)

    keys = list(zip(kinds_of(config), sparse, strict=True))
    # The files say whether it is there. It counts its layers anew.
    further = layer((FULL, sparse[0])) if further_layers(config, 1) else None
    return model_of(config, "qwen3_next", layers_of(keys, layer), norm_offset=1.0, further=further)
