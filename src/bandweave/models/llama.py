"""Llama 2 and 3.x, Mistral, TinyLlama, SmolLM: one text.

Touvron et al. 2023 (arXiv:2307.09288), Llama team 2024 (arXiv:2407.21783), Jiang et al. 2023
(arXiv:2310.06825, the sliding window).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder
from bandweave.models.graph import Graph
from bandweave.models.spec import ModelSpec

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")


def from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The spec of a Llama-like ``config.json``; ``ConfigError`` where it is not one we run."""
    fields.require(config, "hidden_act", ("silu",), "silu")
    num_heads = fields.integer(config, "num_attention_heads")
    bias = fields.flag(config, "attention_bias", False)
    window = config.get("sliding_window")
    return ModelSpec(
        family="llama",
        hidden_size=fields.integer(config, "hidden_size"),
        num_layers=fields.integer(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.integer(config, "num_key_value_heads", num_heads),
        head_dim=fields.head_dim(config),
        intermediate_size=fields.integer(config, "intermediate_size"),
        vocab_size=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings", 2048),
        norm_eps=fields.number(config, "rms_norm_eps", 1e-6),
        rope=fields.rope(config),
        tied_embeddings=fields.flag(config, "tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag(config, "mlp_bias", False),
        sliding_window=None if window is None else fields.integer(config, "sliding_window"),
    )


def build(spec: ModelSpec) -> Graph:
    """The operations of one step."""
    return decoder(spec)
