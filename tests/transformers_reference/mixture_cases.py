"""Tiny mixtures of experts of every family that has them, with all that is special turned on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
    "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0,
}  # fmt: skip

LATENT = {
    "num_attention_heads": 5, "num_key_value_heads": 5, "kv_lora_rank": 40,
    "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 20,
}  # fmt: skip

MIXTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2_moe": ("Qwen2MoeForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 150, "vocab_size": 280,
        "max_position_embeddings": 512, "moe_intermediate_size": 72, "num_experts": 6,
        "shared_expert_intermediate_size": 92, "num_experts_per_tok": 2, "mlp_only_layers": [1],
        "use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1,
    }),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 150, "vocab_size": 290,
        "max_position_embeddings": 512, "moe_intermediate_size": 52, "num_experts": 9,
        "num_experts_per_tok": 4, "norm_topk_prob": True, "decoder_sparse_step": 2,
    }),
    "mixtral": ("MixtralForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 132, "vocab_size": 270,
        "max_position_embeddings": 512, "num_local_experts": 5, "num_experts_per_tok": 2,
        "sliding_window": 40,
    }),
    "minimax_m2": ("MiniMaxM2ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 60, "vocab_size": 280,
        "max_position_embeddings": 512, "num_local_experts": 8, "num_experts_per_tok": 3,
        "rotary_dim": 10,
    }),
    "deepseek_v2": ("DeepseekV2ForCausalLM", {
        **LATENT, "hidden_size": 60, "num_hidden_layers": 3, "intermediate_size": 140,
        "vocab_size": 280, "max_position_embeddings": 512, "q_lora_rank": None,
        "moe_intermediate_size": 60, "n_routed_experts": 8, "n_shared_experts": 2,
        "num_experts_per_tok": 3, "first_k_dense_replace": 1, "topk_method": "group_limited_greedy",
        "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5,
        "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    }),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {
        **LATENT, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 140,
        "vocab_size": 290, "max_position_embeddings": 512, "q_lora_rank": 36,
        "moe_intermediate_size": 60, "n_routed_experts": 12, "n_shared_experts": 1,
        "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
        "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    }),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", {
        **LATENT, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 140,
        "vocab_size": 280, "max_position_embeddings": 512, "q_lora_rank": 36,
        "qk_nope_head_dim": 36, "v_head_dim": 48, "moe_intermediate_size": 60,
        "n_routed_experts": 6, "num_experts_per_tok": 2,
    }),
    "glm4_moe": ("Glm4MoeForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 140, "vocab_size": 280,
        "max_position_embeddings": 512, "attention_bias": True, "moe_intermediate_size": 60,
        "num_experts_per_tok": 3, "n_routed_experts": 8, "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1, "use_qk_norm": True,
    }),
    "gpt_oss": ("GptOssForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 72, "vocab_size": 280,
        "max_position_embeddings": 512, "num_local_experts": 6, "num_experts_per_tok": 2,
        "sliding_window": 40,
        "rope_parameters": {**YARN, "rope_theta": 150000.0, "truncate": False},
    }),
}  # fmt: skip
