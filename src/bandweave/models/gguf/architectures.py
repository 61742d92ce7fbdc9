"""llama.cpp's architectures: the fields of a config.json that say the same, and tensors' names.

One entry an architecture; what an architecture fixes in its code, not in the file, stands here as
well (llama.cpp's src/models and conversion). Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.gguf import names
from bandweave.models.gguf.deepseek import deepseek2, deepseek_names, indexed
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.gguf.sizes import first_mixture, mixture, rope_dim, sizes, window_kinds
from bandweave.models.tensor_names import Names
from bandweave.shown import shown

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """``model_type`` and ``name`` are transformers'; ``fields`` makes a config.json's of the
    metadata; ``norm_offset``: norms' weights are stored with what the family adds to them."""

    model_type: str
    name: str
    fields: Callable[[Metadata], Fields]
    names: Names = field(default_factory=lambda: names.COMMON)
    norm_offset: bool = False


def find_architecture(data: Metadata) -> Architecture:
    """``ConfigError`` lists those that can be run where the file's cannot."""
    found = _ARCHITECTURES.get(data.architecture)
    if found is None:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ConfigError(
            f"architecture {shown(data.architecture)} is not supported; supported are {known}"
        )
    if data.architecture == "llama" and data.size("expert_count", 0):
        return _MIXTRAL
    return found


def _llama(data: Metadata) -> Fields:
    return {
        **sizes(data),
        "attention_bias": "blk.0.attn_q.bias" in data.shapes,
        "mlp_bias": "blk.0.ffn_gate.bias" in data.shapes,
    }


def _mixtral(data: Metadata) -> Fields:
    given = {**sizes(data), **mixture(data), "sliding_window": None}
    width = given.pop("moe_intermediate_size", None)
    given["num_local_experts"] = given.pop("num_experts")
    if width is not None:
        given["intermediate_size"] = width
    return given


def _qwen2(data: Metadata) -> Fields:
    return {**sizes(data), "use_sliding_window": False}


def _qwen2_moe(data: Metadata) -> Fields:
    return {
        **_qwen2(data), **mixture(data), "norm_topk_prob": False,
        "shared_expert_intermediate_size": _shared_width(data),
        "qkv_bias": "blk.0.attn_q.bias" in data.shapes,
    }  # fmt: skip


def _shared_width(data: Metadata) -> int:
    stored = data.shapes.get("blk.0.ffn_up_shexp.weight", (0,))
    return data.size("expert_shared_feed_forward_length", stored[0])


def _qwen3(data: Metadata) -> Fields:
    return {**_qwen2(data), "attention_bias": "blk.0.attn_q.bias" in data.shapes}


def _qwen3_moe(data: Metadata) -> Fields:
    return {**_qwen3(data), **mixture(data), "norm_topk_prob": True}


def _gemma(data: Metadata, *, third: bool) -> Fields:
    given, layers = sizes(data), data.size("block_count")
    heads, largest = data.size("attention.head_count"), 62 if third else 46
    scale = given["head_dim"]
    if layers == largest:  # of 27 billion weights: scores are scaled by the hidden size
        scale = given["hidden_size"] // max(heads, 1)
    del given["hidden_act"]
    given |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": data.number("attention.query_pre_attn_scalar", scale),
        "attn_logit_softcapping": data.number("attn_logit_softcapping", None if third else 50.0),
        "final_logit_softcapping": data.number("final_logit_softcapping", None if third else 30.0),
        "sliding_window": data.size("attention.sliding_window", 1024 if third else 4096),
        "layer_types": window_kinds(data, 6 if third else 2),
        "attention_bias": False,
    }
    if third:
        given["rope_local_base_freq"] = data.number("rope.freq_base_swa", 10000.0)
    return given


def _phi3(data: Metadata) -> Fields:
    given = sizes(data)
    rotary = rope_dim(data, given["head_dim"])
    given["sliding_window"] = data.size("attention.sliding_window", 0) or None
    if rotary != given["head_dim"]:
        given["partial_rotary_factor"] = rotary / given["head_dim"]
    return given


def _glm4(data: Metadata) -> Fields:
    given = sizes(data)
    return {
        **given,
        "partial_rotary_factor": rope_dim(data, given["head_dim"]) / given["head_dim"],
        "attention_bias": "blk.0.attn_q.bias" in data.shapes,
    }


def _glm4_moe(data: Metadata) -> Fields:
    given = {**_glm4(data), **mixture(data)}
    given["n_routed_experts"] = given.pop("num_experts")
    return {
        **given,
        "n_shared_experts": data.size("expert_shared_count", 0),
        "first_k_dense_replace": first_mixture(data, given["num_hidden_layers"]),
        "routed_scaling_factor": data.number("expert_weights_scale", 1.0),
        "norm_topk_prob": data.flag("expert_weights_norm", True),
        "n_group": data.size("expert_group_count", 1) or 1,
        "topk_group": data.size("expert_group_used_count", 1) or 1,
        "use_qk_norm": "blk.0.attn_q_norm.weight" in data.shapes,
        "num_nextn_predict_layers": data.size("nextn_predict_layers", 0),
    }


def _gpt_oss(data: Metadata) -> Fields:
    given = {**sizes(data), **mixture(data)}
    width = given.pop("moe_intermediate_size", given["intermediate_size"])
    given["num_local_experts"] = given.pop("num_experts")
    if given.get("rope_scaling", {}).get("rope_type") == "yarn":
        given["rope_scaling"]["truncate"] = False  # as the model was trained
    return {
        **given,
        "intermediate_size": width,
        "sliding_window": data.size("attention.sliding_window", 128),
        "layer_types": window_kinds(data, 2),
        "attention_bias": True,
    }


def _minimax(data: Metadata) -> Fields:
    given = {**sizes(data), **mixture(data)}
    width = given.pop("moe_intermediate_size", given["intermediate_size"])
    given["num_local_experts"] = given.pop("num_experts")
    return {
        **given,
        "intermediate_size": width,
        "rotary_dim": rope_dim(data, given["head_dim"]),
        "use_qk_norm": True,
    }


def _granite(data: Metadata) -> Fields:
    given = sizes(data)
    head = given["head_dim"]
    return {
        **given,
        "attention_bias": "blk.0.attn_q.bias" in data.shapes,
        "mlp_bias": "blk.0.ffn_gate.bias" in data.shapes,
        "embedding_multiplier": data.number("embedding_scale", 1.0) or 1.0,
        "residual_multiplier": data.number("residual_scale", 1.0) or 1.0,
        "attention_multiplier": data.number("attention.scale", 0.0) or head**-0.5,
        "logits_scaling": data.number("logit_scale", 1.0) or 1.0,
    }


def _cohere2(data: Metadata) -> Fields:
    given = sizes(data, eps="attention.layer_norm_epsilon")
    given["layer_norm_eps"] = given.pop("rms_norm_eps")
    return {
        **given,
        "logit_scale": data.number("logit_scale", 1.0),
        "sliding_window": data.size("attention.sliding_window"),
        "layer_types": window_kinds(data, 4),
    }


def _smollm3(data: Metadata) -> Fields:
    return {**_llama(data), "no_rope_layer_interval": 4, "use_sliding_window": False}


def _olmo2(data: Metadata) -> Fields:
    if data.size("attention.sliding_window", 0):
        raise ConfigError("it has layers with a window, as OLMo 3 has, which cannot be run")
    return {**sizes(data), "attention_bias": "blk.0.attn_q.bias" in data.shapes}


def _seed_oss(data: Metadata) -> Fields:
    return {
        **_llama(data),
        "attention_bias": "blk.0.attn_q.bias" in data.shapes,
        "attention_out_bias": "blk.0.attn_output.bias" in data.shapes,
    }


def _ernie(data: Metadata) -> Fields:
    return {**sizes(data), "use_bias": "blk.0.attn_q.bias" in data.shapes}


def _ernie_moe(data: Metadata) -> Fields:
    given = {**sizes(data), **mixture(data), "use_bias": False}
    given["moe_num_experts"] = given.pop("num_experts")
    given["moe_k"] = given.pop("num_experts_per_tok")
    layers = range(given["num_hidden_layers"])
    mixed = [n for n in layers if f"blk.{n}.ffn_gate_inp.weight" in data.shapes]
    return {
        **given,
        "moe_num_shared_experts": data.size("expert_shared_count", 0),
        "moe_layer_start_index": data.size("leading_dense_block_count", 0),
        "moe_layer_interval": data.size("interleave_moe_layer_step", 1) or 1,
        "moe_layer_end_index": max(mixed, default=-1),
    }


_DENSE_NORMED: Names = {**names.COMMON, **names.QK_NORMS}
_MIXTRAL = Architecture(
    model_type="mixtral",
    name="MixtralForCausalLM",
    fields=_mixtral,
    names={**names.COMMON, **names.PAIRS, **names.MIXTURE},
)

_ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        model_type="llama",
        name="LlamaForCausalLM",
        fields=_llama,
        names={**names.COMMON, **names.PAIRS},
    ),
    "qwen2": Architecture(model_type="qwen2", name="Qwen2ForCausalLM", fields=_qwen2),
    "qwen2moe": Architecture(
        model_type="qwen2_moe",
        name="Qwen2MoeForCausalLM",
        fields=_qwen2_moe,
        names={**names.COMMON, **names.MIXTURE},
    ),
    "qwen3": Architecture(
        model_type="qwen3", name="Qwen3ForCausalLM", fields=_qwen3, names=_DENSE_NORMED
    ),
    "qwen3moe": Architecture(
        model_type="qwen3_moe",
        name="Qwen3MoeForCausalLM",
        fields=_qwen3_moe,
        names={**_DENSE_NORMED, **names.MIXTURE},
    ),
    "gemma2": Architecture(
        model_type="gemma2",
        name="Gemma2ForCausalLM",
        fields=lambda data: _gemma(data, third=False),
        names={**names.COMMON, **names.BOTH_NORMS},
        norm_offset=True,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        name="Gemma3ForCausalLM",
        fields=lambda data: _gemma(data, third=True),
        names={**_DENSE_NORMED, **names.BOTH_NORMS},
        norm_offset=True,
    ),
    "phi3": Architecture(
        model_type="phi3",
        name="Phi3ForCausalLM",
        fields=_phi3,
        names={**names.COMMON, **names.FUSED_QKV, **names.FUSED_GATE_UP},
    ),
    "glm4": Architecture(
        model_type="glm4",
        name="Glm4ForCausalLM",
        fields=_glm4,
        names={**names.COMMON, **names.BOTH_NORMS, **names.FUSED_GATE_UP},
    ),
    "glm4moe": Architecture(
        model_type="glm4_moe",
        name="Glm4MoeForCausalLM",
        fields=_glm4_moe,
        names={**_DENSE_NORMED, **names.MIXTURE, **names.POST_NORM, **names.FURTHER},
    ),
    "gpt-oss": Architecture(
        model_type="gpt_oss",
        name="GptOssForCausalLM",
        fields=_gpt_oss,
        names={
            **names.COMMON,
            **names.MIXTURE,
            **names.POST_NORM,
            "layers.{}.sinks": "blk.{}.attn_sinks.weight",
        },
    ),
    "minimax-m2": Architecture(
        model_type="minimax_m2",
        name="MiniMaxM2ForCausalLM",
        fields=_minimax,
        names={**_DENSE_NORMED, **names.MIXTURE},
    ),
    "granite": Architecture(
        model_type="granite",
        name="GraniteForCausalLM",
        fields=_granite,
        names={**names.COMMON, **names.PAIRS},
    ),
    "smollm3": Architecture(
        model_type="smollm3",
        name="SmolLM3ForCausalLM",
        fields=_smollm3,
        names={**names.COMMON, **names.PAIRS},
    ),
    "olmo2": Architecture(
        model_type="olmo2",
        name="Olmo2ForCausalLM",
        fields=_olmo2,
        names={**_DENSE_NORMED, **names.BOTH_NORMS},
    ),
    "seed_oss": Architecture(
        model_type="seed_oss",
        name="SeedOssForCausalLM",
        fields=_seed_oss,
        names={**names.COMMON, **names.POST_NORM},
    ),
    "cohere2": Architecture(model_type="cohere2", name="Cohere2ForCausalLM", fields=_cohere2),
    "ernie4_5": Architecture(model_type="ernie4_5", name="Ernie4_5ForCausalLM", fields=_ernie),
    "ernie4_5-moe": Architecture(
        model_type="ernie4_5_moe",
        name="Ernie4_5_MoeForCausalLM",
        fields=_ernie_moe,
        names={**names.COMMON, **names.MIXTURE},
    ),
    "deepseek32": Architecture(
        model_type="deepseek_v32",
        name="DeepseekV32ForCausalLM",
        fields=indexed,
        names=deepseek_names(),
    ),
    "glm-dsa": Architecture(
        model_type="glm_moe_dsa",
        name="GlmMoeDsaForCausalLM",
        fields=indexed,
        names=deepseek_names(),
    ),
    "deepseek2": Architecture(
        model_type="deepseek_v3",
        name="DeepseekV3ForCausalLM",
        fields=deepseek2,
        names=deepseek_names(),
    ),
}
