"""Qwen3, dense: Llama's text with a norm on each query and key head.

Qwen team 2025 (arXiv:2505.09388).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, SLIDING, listed_kinds, window
from bandweave.models.graph import Graph
from bandweave.models.spec import HeadsSpec, LayerSpec, MlpSpec, ModelSpec
from bandweave.models.tensor_names import DECODER

_QWEN3 = "Qwen3ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _QWEN3: {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False,
        "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"qwen3": _QWEN3}
OWN_FIELDS: tuple[str, ...] = ("use_qk_norm", "qk_layernorm")
TENSOR_NAMES: Mapping[str, str] = {
    **DECODER,
    "layers.{}.q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "layers.{}.k_norm": "model.layers.{}.self_attn.k_norm.weight",
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Qwen3 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")  # two names of one function
    refuse_biases(config, "mlp_bias")
    bias = fields.flag(config, "attention_bias", False)
    layer = LayerSpec(
        attention=HeadsSpec(
            num_heads=fields.integer(config, "num_attention_heads"),
            num_kv_heads=fields.kv_heads(config),
            head_dim=fields.integer(config, "head_dim"),
            rope=rope(config),
            window=_window(config),
            qkv_bias=bias,
            output_bias=bias,
            qk_norm="head",
        ),
        mlp=MlpSpec(intermediate_size=fields.integer(config, "intermediate_size")),
    )
    return ModelSpec(
        family="qwen3",
        hidden_size=fields.integer(config, "hidden_size"),
        vocab_size=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings"),
        norm_eps=fields.number(config, "rms_norm_eps"),
        layers=(layer,) * fields.integer(config, "num_hidden_layers"),
        tied_embeddings=fields.flag(config, "tie_word_embeddings", False),
    )


def _window(config: Config) -> int | None:
    """Where windows are used, ``layer_types`` say in which layers, else all from
    ``max_window_layers`` on have one."""
    kinds = listed_kinds(config)
    used = fields.flag(config, "use_sliding_window", False)
    if not used or config.get("sliding_window") is None:
        if SLIDING in kinds:
            raise ConfigError(
                f"config.json: layer_types has {SLIDING!r}, but use_sliding_window and "
                "sliding_window say that there is no window"
            )
        return None
    if not kinds:
        full = fields.count(config, "max_window_layers")
        count = fields.integer(config, "num_hidden_layers")
        kinds = [FULL] * min(full, count) + [SLIDING] * max(0, count - full)
    return window(config, kinds)


def build(spec: ModelSpec) -> Graph:
    """The operations of one step."""
    return decoder(spec)
