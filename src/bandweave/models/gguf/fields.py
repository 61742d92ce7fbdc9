"""The fields of a config.json that say what a GGUF file's metadata say, for each architecture.

What llama.cpp fixes in its code, not in the file, stands here as well (its src/models and
conversion).
"""

from __future__ import annotations

from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.gguf.sizes import first_mixture, mixture, rope_dim, sizes, window_kinds

Fields = dict[str, Any]


def _has_bias(data: Metadata) -> bool:
    """Whether products of attention's inputs have biases."""
    return "blk.0.attn_q.bias" in data.shapes


def _local_experts(data: Metadata) -> Fields:
    """Sizes of a mixture whose config calls its experts local, and their width that of its MLPs."""
    given = {**sizes(data), **mixture(data)}
    given["num_local_experts"] = given.pop("num_experts")
    given["intermediate_size"] = given.pop("moe_intermediate_size", given["intermediate_size"])
    return given


def llama(data: Metadata) -> Fields:
    return {
        **sizes(data),
        "attention_bias": _has_bias(data),
        "mlp_bias": "blk.0.ffn_gate.bias" in data.shapes,
    }


def mixtral(data: Metadata) -> Fields:
    return {**_local_experts(data), "sliding_window": None}


def qwen2(data: Metadata) -> Fields:
    return {**sizes(data), "use_sliding_window": False}


def qwen2_moe(data: Metadata) -> Fields:
    return {
        **qwen2(data), **mixture(data),
        "norm_topk_prob": data.flag("expert_weights_norm", False),
        "shared_expert_intermediate_size": _shared_width(data),
        "qkv_bias": _has_bias(data),
    }  # fmt: skip


def _shared_width(data: Metadata) -> int:
    stored = data.shapes.get("blk.0.ffn_up_shexp.weight", (0,))
    return data.size("expert_shared_feed_forward_length", stored[0])


def qwen3(data: Metadata) -> Fields:
    return {**qwen2(data), "attention_bias": _has_bias(data)}


def qwen3_moe(data: Metadata) -> Fields:
    normed = data.flag("expert_weights_norm", True)
    return {**qwen3(data), **mixture(data), "norm_topk_prob": normed}


def gemma(data: Metadata, *, third: bool) -> Fields:
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
        "attention_bias": _has_bias(data),
    }
    if third:
        given["rope_local_base_freq"] = data.number("rope.freq_base_swa", 10000.0)
    return given


def phi3(data: Metadata) -> Fields:
    given = sizes(data)
    rotary = rope_dim(data, given["head_dim"])
    given["sliding_window"] = data.size("attention.sliding_window", 0) or None
    if rotary != given["head_dim"]:
        given["partial_rotary_factor"] = rotary / given["head_dim"]
    return given


def glm4(data: Metadata) -> Fields:
    given = sizes(data)
    return {
        **given,
        "partial_rotary_factor": rope_dim(data, given["head_dim"]) / given["head_dim"],
        "attention_bias": _has_bias(data),
    }


def glm4_moe(data: Metadata) -> Fields:
    given = {**glm4(data), **mixture(data)}
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


def gpt_oss(data: Metadata) -> Fields:
    given = _local_experts(data)
    scaling = given.setdefault("rope_scaling", {"rope_type": "default"})  # silence would be YaRN
    if scaling["rope_type"] == "yarn":
        scaling["truncate"] = False  # as the model was trained
    return {
        **given,
        "sliding_window": data.size("attention.sliding_window", 128),
        "layer_types": window_kinds(data, 2),
        "attention_bias": True,
    }


def minimax(data: Metadata) -> Fields:
    given = _local_experts(data)
    return {
        **given,
        "rotary_dim": rope_dim(data, given["head_dim"]),
        "use_qk_norm": True,
    }


def granite(data: Metadata) -> Fields:
    given = sizes(data)
    head = given["head_dim"]
    return {
        **given,
        "attention_bias": _has_bias(data),
        "mlp_bias": "blk.0.ffn_gate.bias" in data.shapes,
        "embedding_multiplier": data.number("embedding_scale", 1.0) or 1.0,
        "residual_multiplier": data.number("residual_scale", 1.0) or 1.0,
        "attention_multiplier": data.number("attention.scale", 0.0) or head**-0.5,
        "logits_scaling": data.number("logit_scale", 1.0) or 1.0,
    }


def cohere2(data: Metadata) -> Fields:
    given = sizes(data, eps="attention.layer_norm_epsilon")
    given["layer_norm_eps"] = given.pop("rms_norm_eps")
    return {
        **given,
        "attention_bias": _has_bias(data),
        "logit_scale": data.number("logit_scale", 1.0),
        "sliding_window": data.size("attention.sliding_window"),
        "layer_types": window_kinds(data, 4),
    }


def smollm3(data: Metadata) -> Fields:
    return {**llama(data), "no_rope_layer_interval": 4, "use_sliding_window": False}


def olmo2(data: Metadata) -> Fields:
    if data.size("attention.sliding_window", 0):
        raise ConfigError(
            "it has layers with a window, as OLMo 3 has, which is run from its safetensors version"
        )
    return {**sizes(data), "attention_bias": _has_bias(data)}


def seed_oss(data: Metadata) -> Fields:
    return {
        **llama(data),
        "attention_out_bias": "blk.0.attn_output.bias" in data.shapes,
    }


def ernie(data: Metadata) -> Fields:
    return {**sizes(data), "use_bias": _has_bias(data)}


def ernie_moe(data: Metadata) -> Fields:
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
