"""Tiny models some of whose layers have a recurrent state in the place of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROPE = {
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 100000.0, "partial_rotary_factor": 0.25,
    },
}  # fmt: skip

HYBRIDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen3_next": ("Qwen3NextForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 150, "vocab_size": 280,
        "max_position_embeddings": 512, "attention_bias": True, "moe_intermediate_size": 52,
        "shared_expert_intermediate_size": 92, "num_experts": 6, "num_experts_per_tok": 2,
        "mlp_only_layers": [1], "full_attention_interval": 2, "linear_num_key_heads": 3,
        "linear_num_value_heads": 6, "linear_key_head_dim": 20, "linear_value_head_dim": 28,
        "linear_conv_kernel_dim": 4, **_ROPE,
    }),
    "qwen3_5": ("Qwen3_5ForCausalLM", {
        "hidden_size": 72, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 140, "vocab_size": 290,
        "max_position_embeddings": 512, "tie_word_embeddings": True,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 36,
        "linear_value_head_dim": 18, "linear_conv_kernel_dim": 3,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.5,
            "mrope_interleaved": True, "mrope_section": [2, 2, 1],
        },
    }),
    "qwen3_5_moe": ("Qwen3_5MoeForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 270,
        "max_position_embeddings": 512, "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 70, "num_experts": 8, "num_experts_per_tok": 3,
        "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, **_ROPE,
    }),
}  # fmt: skip
