"""Tiny models of the families beside Llama's, each with all that is special about it turned on.

Windows are shorter than the prompts, bounds bite, factors are no powers of two. Knows architectures
and what transformers' config classes take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.transformers_reference.hybrid_cases import HYBRIDS
from tests.transformers_reference.mixture_cases import MIXTURES

_WINDOW = 40

FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2": ("Qwen2ForCausalLM", {
        "hidden_size": 72, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 140, "vocab_size": 280,
        "max_position_embeddings": 512, "tie_word_embeddings": True,
        "use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 2,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    }),
    "gemma2": ("Gemma2ForCausalLM", {
        "hidden_size": 66, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 3, "head_dim": 20, "intermediate_size": 150, "vocab_size": 290,
        "max_position_embeddings": 512, "sliding_window": _WINDOW, "query_pre_attn_scalar": 13,
        "attn_logit_softcapping": 2.5, "final_logit_softcapping": 3.0,
    }),
    "gemma3": ("Gemma3ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 130, "vocab_size": 300,
        "max_position_embeddings": 512, "sliding_window": _WINDOW, "query_pre_attn_scalar": 37,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
    }),
    "phi3_longrope": ("Phi3ForCausalLM", {
        "hidden_size": 80, "num_hidden_layers": 3, "num_attention_heads": 5,
        "num_key_value_heads": 5, "intermediate_size": 150, "vocab_size": 270,
        "max_position_embeddings": 512, "original_max_position_embeddings": 4,
        "sliding_window": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 4,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.05, 1.5, 2.5, 4.25, 8.5, 16.0],
        },
    }),
    "glm4": ("Glm4ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 140, "vocab_size": 260,
        "max_position_embeddings": 512, "attention_bias": True, "pad_token_id": 0,
        "eos_token_id": 2,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        },
    }),
    "olmo2": ("Olmo2ForCausalLM", {
        "hidden_size": 72, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 170, "vocab_size": 310,
        "max_position_embeddings": 512, "attention_bias": True, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    }),
    "granite": ("GraniteForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 140, "vocab_size": 300,
        "max_position_embeddings": 512, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": True, "embedding_multiplier": 11.0, "residual_multiplier": 0.22,
        "attention_multiplier": 0.171, "logits_scaling": 3.0,
    }),
    "smollm3": ("SmolLM3ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 130, "vocab_size": 280,
        "max_position_embeddings": 512, "no_rope_layer_interval": 2, "attention_bias": True,
        "mlp_bias": True, "use_sliding_window": True, "sliding_window": _WINDOW,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }),
    "seed_oss": ("SeedOssForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 18, "intermediate_size": 140, "vocab_size": 270,
        "max_position_embeddings": 512, "attention_bias": True, "attention_out_bias": True,
        "mlp_bias": True,
    }),
    "cohere2": ("Cohere2ForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 150, "vocab_size": 300,
        "max_position_embeddings": 512, "sliding_window": _WINDOW, "logit_scale": 0.3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention",
                        "sliding_attention"],
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }),
    **MIXTURES,
    **HYBRIDS,
}  # fmt: skip
