"""Tiny models of families that came later, whose seeds are counted apart from the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.transformers_reference.mixture_cases import LATENT, YARN

NEWER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "deepseek_v32": ("DeepseekV32ForCausalLM", {
        **LATENT, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 140,
        "vocab_size": 290, "max_position_embeddings": 512, "q_lora_rank": 36,
        "moe_intermediate_size": 60, "n_routed_experts": 12, "n_shared_experts": 1,
        "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
        "index_topk": 256, "index_head_dim": 32, "index_n_heads": 3,
        "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    }),
    "glm_moe_dsa": ("GlmMoeDsaForCausalLM", {
        **LATENT, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 140,
        "vocab_size": 280, "max_position_embeddings": 512, "q_lora_rank": 36,
        "qk_nope_head_dim": 36, "v_head_dim": 48, "moe_intermediate_size": 60,
        "n_routed_experts": 6, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
        "index_topk": 200, "index_head_dim": 32, "index_n_heads": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }),
    "ernie4_5": ("Ernie4_5ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 140, "vocab_size": 270,
        "max_position_embeddings": 512, "use_bias": True,
    }),
    "ernie4_5_moe": ("Ernie4_5_MoeForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 140, "vocab_size": 280,
        "max_position_embeddings": 512, "moe_intermediate_size": 52, "moe_num_experts": 8,
        "moe_k": 3, "moe_num_shared_experts": 2, "moe_layer_start_index": 1,
        "moe_layer_end_index": 2,
    }),
    "olmo3": ("Olmo3ForCausalLM", {
        "hidden_size": 72, "num_hidden_layers": 4, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 150, "vocab_size": 290,
        "max_position_embeddings": 512, "sliding_window": 40, "eos_token_id": 2,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 50000.0},
            "full_attention": {**YARN, "rope_theta": 50000.0, "attention_factor": 1.25},
        },
    }),
    "ministral3": ("Ministral3ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 140, "vocab_size": 280,
        "max_position_embeddings": 512,
        "rope_parameters": {
            **YARN, "original_max_position_embeddings": 160, "mscale": 1.0, "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    }),
}  # fmt: skip
