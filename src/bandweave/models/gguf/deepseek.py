"""DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash: one architecture of llama.cpp's, told apart by
their sizes as it does (llama.cpp's src/models/deepseek2.cpp).
"""

from __future__ import annotations

from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.gguf import names
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.gguf.sizes import first_mixture, mixture, rope_dim, sizes
from bandweave.models.tensor_names import Names

_SOFTMAX, _SIGMOID = 1, 2
_GLM_VOCABULARY = 154880
#: DeepSeek V3 and R1, whose files of 2025 do not say that experts are chosen by groups: how many
#: experts they have, and of how many groups how many are chosen.
_UNSAID_GROUPS = {256: (8, 4)}


DEEPSEEK_NAMES: Names = {**names.COMMON, **names.MIXTURE, **names.LATENT, **names.FURTHER}


def deepseek2(data: Metadata) -> dict[str, Any]:
    """The fields of a config.json of DeepSeek V2 or V3."""
    given = {**sizes(data), **mixture(data)}
    given.pop("head_dim")
    given["num_key_value_heads"] = given["num_attention_heads"]
    rotated, experts = rope_dim(data, 64), given.pop("num_experts")
    keys, values = (_length(data, which) for which in ("key", "value"))
    if keys <= rotated:
        raise ConfigError(f"keys have {keys} elements; they must exceed the {rotated} rotated ones")
    scoring = data.size("expert_gating_func", 0)
    if not scoring:
        glm = given["vocab_size"] == _GLM_VOCABULARY and given["num_hidden_layers"] in (47, 48)
        scoring = _SIGMOID if glm else _SOFTMAX
    if scoring not in (_SOFTMAX, _SIGMOID):
        raise ConfigError(
            f"its router scores in way {scoring}; 1 (softmax) and 2 (sigmoid) can run"
        )
    groups, chosen = _groups_of(data, experts)
    rank = data.size("attention.q_lora_rank", 0)
    given |= {
        "q_lora_rank": rank or None,
        "kv_lora_rank": data.size("attention.kv_lora_rank"),
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": keys - rotated,
        "v_head_dim": values,
        "n_routed_experts": experts,
        "n_shared_experts": data.size("expert_shared_count", 0),
        "first_k_dense_replace": first_mixture(data, given["num_hidden_layers"]),
        "routed_scaling_factor": data.number("expert_weights_scale", 1.0) or 1.0,
        "n_group": groups,
        "topk_group": chosen,
        "norm_topk_prob": data.flag("expert_weights_norm", False),
        "num_nextn_predict_layers": data.size("nextn_predict_layers", 0),
    }
    if scoring == _SOFTMAX:
        grouped = "group_limited_greedy" if groups > 1 else "greedy"
        given |= {
            "model_type": "deepseek_v2",
            "architectures": ["DeepseekV2ForCausalLM"],
            "topk_method": grouped,
        }
    return given


def _length(data: Metadata, which: str) -> int:
    """Elements of a head's keys or values, which older files say without ``_mla``."""
    key = f"attention.{which}_length_mla"
    return data.size(key) if data.has(key) else data.size(f"attention.{which}_length")


def indexed(data: Metadata) -> dict[str, Any]:
    """Those of DeepSeek V3.2 and GLM-5, whose indexer chooses positions; its weights are not
    read."""
    given = deepseek2(data)
    return {
        **given,
        "index_topk": data.size("attention.indexer.top_k"),
        "index_head_dim": data.size("attention.indexer.key_length"),
        "index_n_heads": data.size("attention.indexer.head_count"),
    }


def _groups_of(data: Metadata, experts: int) -> tuple[int, int]:
    """How many groups experts make, and how many of these are chosen."""
    groups = data.size("expert_group_count", 0)
    if groups:
        return groups, data.size("expert_group_used_count", groups)
    return _UNSAID_GROUPS[experts] if unsaid_groups(data) else (1, 1)


def unsaid_groups(data: Metadata) -> bool:
    """Whether a file leaves out that its model chooses experts by groups: by its sizes it is
    DeepSeek V3 or R1."""
    return (
        data.architecture == "deepseek2"
        and not data.size("expert_group_count", 0)
        and data.size("expert_count", 0) in _UNSAID_GROUPS
        and data.size("expert_gating_func", 0) == _SIGMOID
    )
