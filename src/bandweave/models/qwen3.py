"""Qwen3, dense: Llama's text with a norm on each query and key head.

Qwen team 2025 (arXiv:2505.09388).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder
from bandweave.models.graph import Graph
from bandweave.models.spec import ModelSpec

ARCHITECTURES = ("Qwen3ForCausalLM",)


def from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The spec of a Qwen3 ``config.json``; ``ConfigError`` where it is not one we run."""
    fields.require(config, "hidden_act", ("silu",), "silu")
    fields.require(config, "use_sliding_window", (False, None), False)
    num_heads = fields.integer(config, "num_attention_heads")
    bias = fields.flag(config, "attention_bias", False)
    return ModelSpec(
        family="qwen3",
        hidden_size=fields.integer(config, "hidden_size"),
        num_layers=fields.integer(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.integer(config, "num_key_value_heads", num_heads),
        head_dim=fields.integer(config, "head_dim", 128),
        intermediate_size=fields.integer(config, "intermediate_size"),
        vocab_size=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings", 32768),
        norm_eps=fields.number(config, "rms_norm_eps", 1e-6),
        rope=fields.rope({"head_dim": 128, **config}),
        tied_embeddings=fields.flag(config, "tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
    )


def build(spec: ModelSpec) -> Graph:
    """The operations of one step."""
    return decoder(spec)
