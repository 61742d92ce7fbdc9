"""DeepSeek V2, V3 and what is built like them (Kimi K2, GLM-4.7-Flash): latent attention, and
mixtures of experts behind some dense layers.

DeepSeek-AI 2024 (arXiv:2405.04434, arXiv:2412.19437). The attention of DeepSeek V3.2
(arXiv:2512.02556) and GLM-5 reads the ``index_topk`` positions that an indexer chooses: all of
them, up to a context of that length, which is what can be run of it. The norms of latents have an
epsilon of their own, as transformers' classes have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bandweave.models import config as fields
from bandweave.models.attention_spec import IndexSpec, LatentSpec
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import DEEPSEEK_MIXTURE, refuse_biases, text_of
from bandweave.models.config_mixture import (
    further_layers,
    grouped_router,
    mixture_of,
    sparse_after_first,
)
from bandweave.models.config_model import layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, refuse_other_kinds
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, Names, Slice, experts, shared_expert
from bandweave.shown import shown

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_V2, _V3, _GLM = "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM"
_V32, _GLM5 = "DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"
_KIMI = "KimiK25ForConditionalGeneration"  # whose text part is run
_INDEXED = "indexed_attention"

_COMMON: Mapping[str, Any] = {
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}  # fmt: skip

_DEEPSEEK3: Mapping[str, Any] = {
    **_COMMON, "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "num_hidden_layers": 61, "num_attention_heads": 128, "max_position_embeddings": 4096,
    "first_k_dense_replace": 3, "q_lora_rank": 1536, "n_group": 8, "topk_group": 4,
    "n_routed_experts": 256, "n_shared_experts": 1, "routed_scaling_factor": 2.5,
    "norm_topk_prob": True, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
    "rope_interleave": True, "eos_token_id": 1,
}  # fmt: skip
_INDEX: Mapping[str, Any] = {"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64}

#: What transformers' config classes take for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _V2: {
        **_COMMON, "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "mlp_bias": False, "first_k_dense_replace": 0, "q_lora_rank": 1536, "n_group": None,
        "topk_group": None, "n_routed_experts": 64, "n_shared_experts": 2,
        "routed_scaling_factor": 1.0, "topk_method": "greedy", "norm_topk_prob": False,
        "num_experts_per_tok": None, "moe_intermediate_size": 1407, "eos_token_id": 2,
    },
    _V3: _DEEPSEEK3,
    _KIMI: _DEEPSEEK3,
    _V32: {**_DEEPSEEK3, **_INDEX, "max_position_embeddings": 163840},
    _GLM5: {
        **_DEEPSEEK3, **_INDEX, "vocab_size": 154880, "hidden_size": 6144,
        "intermediate_size": 12288, "num_hidden_layers": 78, "num_attention_heads": 64,
        "max_position_embeddings": 202752, "rms_norm_eps": 1e-5, "q_lora_rank": 2048,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "n_group": 1, "topk_group": 1,
        "index_n_heads": 32,
    },
    _GLM: {
        **_COMMON, "vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240,
        "num_hidden_layers": 47, "num_attention_heads": 20, "max_position_embeddings": 202752,
        "rms_norm_eps": 1e-5, "q_lora_rank": 768, "qk_nope_head_dim": 192, "v_head_dim": 256,
        "n_group": 1, "topk_group": 1, "n_routed_experts": 64, "n_shared_experts": 1,
        "routed_scaling_factor": 1.8, "norm_topk_prob": True, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536, "rope_interleave": True, "first_k_dense_replace": 1,
        "eos_token_id": 1,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {
    "deepseek_v2": _V2, "deepseek_v3": _V3, "kimi_k2": _V3, "kimi_k25": _KIMI,
    "glm4_moe_lite": _GLM, "deepseek_v32": _V32, "glm_moe_dsa": _GLM5,
}  # fmt: skip
OWN_FIELDS: tuple[str, ...] = (
    *DEEPSEEK_MIXTURE, "kv_lora_rank", "rope_interleave", "text_config",
)  # fmt: skip


def latent_heads(stored: str) -> dict[str, Slice]:
    """A table for what makes a head's keys and its values of a latent, stored as one matrix: rows
    of both take turns, head by head. Keys' are turned round, since they multiply queries."""
    both = Slice(tensor=stored, parts=(_key_rows, _value_rows), groups=_heads)
    return {
        "layers.{}.k_b_proj": replace(both, turned=True),
        "layers.{}.v_b_proj": replace(both, index=1),
    }


def _heads(layer: LayerSpec) -> int:
    return _latent(layer).num_heads


def _key_rows(layer: LayerSpec) -> int:
    return _latent(layer).num_heads * _latent(layer).nope_dim


def _value_rows(layer: LayerSpec) -> int:
    return _latent(layer).num_heads * _latent(layer).v_dim


def _latent(layer: LayerSpec) -> LatentSpec:
    assert isinstance(layer.attention, LatentSpec), "the family has no other attention"
    return layer.attention


_SELF, _MLP = "model.layers.{}.self_attn", "model.layers.{}.mlp"
TENSOR_NAMES: Names = {
    **DECODER,
    **experts(),
    "layers.{}.q_a_proj": f"{_SELF}.q_a_proj.weight",
    "layers.{}.q_a_norm": f"{_SELF}.q_a_layernorm.weight",
    "layers.{}.q_b_proj": f"{_SELF}.q_b_proj.weight",
    "layers.{}.kv_a_proj": f"{_SELF}.kv_a_proj_with_mqa.weight",
    "layers.{}.kv_a_norm": f"{_SELF}.kv_a_layernorm.weight",
    **latent_heads(f"{_SELF}.kv_b_proj.weight"),
    "layers.{}.router": f"{_MLP}.gate.weight",
    "layers.{}.router.correction": f"{_MLP}.gate.e_score_correction_bias",
    **shared_expert(f"{_MLP}.shared_experts"),
    "layers.{}.enorm": "model.layers.{}.enorm.weight",
    "layers.{}.hnorm": "model.layers.{}.hnorm.weight",
    "layers.{}.eh_proj": "model.layers.{}.eh_proj.weight",
    "layers.{}.shared_head_norm": "model.layers.{}.shared_head.norm.weight",
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of such a ``config.json``; ``ConfigError`` where it is not one we run."""
    config, architecture = text_of(
        config, architecture, {_KIMI: _V3}, OWN_FIELDS, tied=False,
        types=("deepseek_v3", "kimi_k2"),
    )  # fmt: skip
    # Null says that queries are projected at once.
    direct = "q_lora_rank" in config and config["q_lora_rank"] is None
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "attention_bias", "mlp_bias")
    index = None
    if architecture in (_V32, _GLM5):
        index = _index(config)
    else:
        refuse_other_kinds(config, FULL)
    attention = _attention(config, direct, index, interleaved=architecture not in (_V3, _GLM))
    dense, sparse = silu_mlp_of(config), sparse_after_first(config)
    mixture = _mixture(config, architecture) if any(sparse) else None

    def layer(routes: bool) -> LayerSpec:
        mlp = mixture if routes and mixture is not None else dense
        return LayerSpec(attention=attention, mlp=mlp)

    further = layer(True) if further_layers(config) else None
    return model_of(config, "deepseek", layers_of(sparse, layer), further=further)


def _index(config: Config) -> IndexSpec:
    """The indexer, whose weights are not read: it chooses all positions of what can be run."""
    kinds = fields.texts(config, "layer_types")
    count = fields.integer(config, "num_hidden_layers")
    if kinds and kinds != [_INDEXED] * count:
        raise ConfigError(
            f"config.json: layer_types must name each of the {count} layers (num_hidden_layers) "
            f"{_INDEXED!r}"
        )
    return IndexSpec(
        num_heads=fields.integer(config, "index_n_heads"),
        head_dim=fields.integer(config, "index_head_dim"),
        top_k=fields.integer(config, "index_topk"),
    )


def _attention(
    config: Config, direct: bool, index: IndexSpec | None, *, interleaved: bool
) -> LatentSpec:
    rope_dim = fields.integer(config, "qk_rope_head_dim")
    pairs = interleaved or fields.flag(config, "rope_interleave", True)
    return LatentSpec(
        num_heads=fields.integer(config, "num_attention_heads"),
        q_rank=None if direct else fields.integer(config, "q_lora_rank"),
        kv_rank=fields.integer(config, "kv_lora_rank"),
        nope_dim=fields.integer(config, "qk_nope_head_dim"),
        rope_dim=rope_dim,
        v_dim=fields.integer(config, "v_head_dim"),
        rope=rope(config, dim=rope_dim, interleaved=pairs),
        index=index,
    )


def _mixture(config: Config, architecture: str) -> MixtureSpec:
    width = fields.integer(config, "moe_intermediate_size")
    if architecture == _V2:
        method = fields.text(config, "topk_method")
        if method not in ("greedy", "group_limited_greedy"):
            raise ConfigError(
                f"config.json: topk_method is {shown(method)}; 'greedy' and 'group_limited_greedy' "
                "are supported"
            )
        if method == "greedy":
            config = {**config, "n_group": 1, "topk_group": 1}
        if fields.flag(config, "norm_topk_prob", False):
            raise ConfigError(
                "config.json: norm_topk_prob is true, but DeepSeek V2 does not normalise the "
                "weights of its experts"
            )
    return mixture_of(
        config,
        experts="n_routed_experts",
        router=grouped_router(config, experts="n_routed_experts", sigmoid=architecture != _V2),
        shared_size=width * fields.count(config, "n_shared_experts"),
    )
