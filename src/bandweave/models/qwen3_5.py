"""Qwen3.5 and 3.6, dense and mixtures: Qwen3-Next's layers with other names for their tensors.

Qwen team 2026. Of a multimodal model this is what reads and writes text, where the three positions
of its rope are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import text_of
from bandweave.models.config_hybrid import attention_of, kinds_of
from bandweave.models.config_mixture import mixture_of, with_num_experts
from bandweave.models.config_model import layers_of, model_of, silu_mlp_of
from bandweave.models.config_window import FULL
from bandweave.models.mlp_spec import Mlp, RouterSpec
from bandweave.models.qwen_names import DELTA_NET, GATED_HEADS, SHARED_EXPERT, with_further
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import Names, fused

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_DENSE, _MIXTURE = "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"
#: Architectures of multimodal models, with those of their text parts.
_WHOLE: Mapping[str, str] = {
    "Qwen3_5ForConditionalGeneration": _DENSE,
    "Qwen3_5MoeForConditionalGeneration": _MIXTURE,
}
_BOTH: Mapping[str, Any] = {
    "vocab_size": 248320, "num_attention_heads": 16, "head_dim": 256, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
    "eos_token_id": None,
}  # fmt: skip

#: What transformers' config classes take for fields that a config lacks, by architecture.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _DENSE: {
        **_BOTH, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
        "num_key_value_heads": 4,
    },
    _MIXTURE: {
        **_BOTH, "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "num_experts_per_tok": 8, "num_experts": 256,
    },
    **{whole: {"eos_token_id": None} for whole in _WHOLE},  # the others are those of text_config
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {
    "qwen3_5_text": _DENSE, "qwen3_5_moe_text": _MIXTURE,
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
}  # fmt: skip
OWN_FIELDS: tuple[str, ...] = (
    "num_experts", "num_local_experts", "use_qk_norm", "qk_layernorm", "text_config",
    "shared_expert_intermediate_size",
)  # fmt: skip

_LINEAR = "model.layers.{}.linear_attn"
TENSOR_NAMES: Names = with_further(
    {
        **GATED_HEADS,
        **SHARED_EXPERT,
        **DELTA_NET,
        **fused(
            f"{_LINEAR}.in_proj_qkv.weight",
            *(f"layers.{{}}.delta_{part}_proj" for part in ("q", "k", "v")),
        ),
        "layers.{}.delta_z_proj": f"{_LINEAR}.in_proj_z.weight",
        "layers.{}.delta_write_proj": f"{_LINEAR}.in_proj_b.weight",
        "layers.{}.delta_decay_proj": f"{_LINEAR}.in_proj_a.weight",
    }
)


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Qwen3.5 ``config.json``; ``ConfigError`` where it is not one we run."""
    config, architecture = text_of(config, architecture, _WHOLE, OWN_FIELDS, tied=False)
    config = fields.with_defaults(with_num_experts(config), DEFAULTS[architecture])
    attention, mlp = attention_of(config), _mlp(config, architecture)

    def layer(kind: str) -> LayerSpec:
        return LayerSpec(attention=attention[kind], mlp=mlp)

    further = layer(FULL) if fields.count(config, "mtp_num_hidden_layers") else None
    return model_of(
        config, "qwen3_5", layers_of(kinds_of(config), layer), norm_offset=1.0, further=further
    )


def _mlp(config: Config, architecture: str) -> Mlp:
    if architecture == _DENSE:
        return silu_mlp_of(config)
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")
    return mixture_of(
        config,
        experts="num_experts",
        router=RouterSpec(normalise=True),
        shared_size=fields.integer(config, "shared_expert_intermediate_size"),
        shared_gate=True,
    )
