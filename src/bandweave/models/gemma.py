"""Gemma 2 and 3: norms on both sides of each block, of which most see a window only.

Gemma team 2024 (arXiv:2408.00118) and 2025 (arXiv:2503.19786). Of a multimodal model this is what
reads and writes text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_fields import text_of
from bandweave.models.config_model import heads_of, layers_of, mlp_of, model_of
from bandweave.models.config_rope import rope, rope_of_kind
from bandweave.models.config_window import FULL, SLIDING, kinds_by_turns, windows
from bandweave.models.mlp_spec import GateSpec
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS, either

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_GEMMA2, _GEMMA3 = "Gemma2ForCausalLM", "Gemma3ForCausalLM"
_MULTIMODAL = "Gemma3ForConditionalGeneration"

_BOTH: Mapping[str, Any] = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "attention_bias": False, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "eos_token_id": 1,
}  # fmt: skip
_TEXT: Mapping[str, Any] = {
    **_BOTH, "vocab_size": 262208, "max_position_embeddings": 131072,
    "final_logit_softcapping": None, "attn_logit_softcapping": None,
}  # fmt: skip

#: What transformers' config classes take for fields that a config lacks, by architecture.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _GEMMA2: {
        **_BOTH, "vocab_size": 256000, "max_position_embeddings": 8192,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    },
    _GEMMA3: _TEXT,
    _MULTIMODAL: {"eos_token_id": 1},  # the others are those of its text_config
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {
    "gemma2": _GEMMA2, "gemma3_text": _GEMMA3, "gemma3": _MULTIMODAL,
}  # fmt: skip
OWN_FIELDS: tuple[str, ...] = (
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar",
    "sliding_window_pattern", "text_config",
)  # fmt: skip

_NAMES: Mapping[str, str] = {
    **DECODER,
    **QK_NORMS,
    "layers.{}.attention_out_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.post_norm": "model.layers.{}.pre_feedforward_layernorm.weight",
    "layers.{}.mlp_out_norm": "model.layers.{}.post_feedforward_layernorm.weight",
}
#: A multimodal folder has the same tensors within its language model.
TENSOR_NAMES = either(
    _NAMES,
    {name: f"language_model.{stored}" for name, stored in _NAMES.items()},
    {name: stored.replace("model.", "model.language_model.", 1) for name, stored in _NAMES.items()},
)


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Gemma ``config.json``; ``ConfigError`` where it is not one we run."""
    config, architecture = text_of(
        config, architecture, {_MULTIMODAL: _GEMMA3}, OWN_FIELDS, tied=True
    )
    config = fields.with_defaults(config, DEFAULTS[architecture])
    fields.require(config, "hidden_activation", ("gelu_pytorch_tanh",), None)
    fields.require(config, "use_bidirectional_attention", (False,), False)
    third = architecture == _GEMMA3
    bias = fields.flag(config, "attention_bias", False)
    kinds = kinds_by_turns(config, 6 if third else 2)
    ropes = {kind: _rope(config, kind) if third else rope(config) for kind in set(kinds)}
    mlp = mlp_of(config, gate=GateSpec(function="gelu_tanh"))

    def layer(key: tuple[str, int | None]) -> LayerSpec:
        kind, window = key
        attention = heads_of(
            config,
            rope=ropes[kind],
            window=window,
            scale=fields.factor(config, "query_pre_attn_scalar") ** -0.5,
            score_cap=_cap(config, "attn_logit_softcapping"),
            qkv_bias=bias,
            output_bias=bias,
            qk_norm="head" if third else "",
        )
        return LayerSpec(attention=attention, mlp=mlp, form="both")

    return model_of(
        config,
        "gemma",
        layers_of(list(zip(kinds, windows(config, kinds), strict=True)), layer),
        norm_offset=1.0,
        embedding_factor=fields.integer(config, "hidden_size") ** 0.5,
        logit_cap=_cap(config, "final_logit_softcapping"),
    )


def _cap(config: Config, name: str) -> float:
    return 0.0 if config.get(name) is None else fields.factor(config, name)


def _rope(config: Config, kind: str) -> RopeSpec:
    """Layers with a window have a rope of their own."""
    if kind == FULL:
        return rope_of_kind(config, FULL, theta=1e6, field="rope_theta", scaled=True)
    return rope_of_kind(config, SLIDING, theta=10000.0, field="rope_local_base_freq")
