"""Mixtral and MiniMax M2: every layer a mixture of experts.

Jiang et al. 2024 (arXiv:2401.04088); MiniMax 2025, whose queries and keys are normed over all heads
together and whose experts are chosen by sigmoids with a correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_mixture import mixture_of
from bandweave.models.config_model import heads_of, layers_of, model_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, SLIDING, refuse_other_kinds, windows
from bandweave.models.mlp_spec import SIGMOID, RouterSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, QK_NORMS, Names, either, experts
from bandweave.shown import shown

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_MIXTRAL, _MINIMAX = "MixtralForCausalLM", "MiniMaxM2ForCausalLM"

#: What transformers' config classes take for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _MIXTRAL: {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "sliding_window": None, "num_experts_per_tok": 2,
        "num_local_experts": 8, "eos_token_id": 2,
    },
    _MINIMAX: {
        "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536,
        "num_hidden_layers": 62, "num_attention_heads": 48, "num_key_value_heads": 8,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 196608,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "num_experts_per_tok": 8,
        "num_local_experts": 256, "eos_token_id": 200020,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"mixtral": _MIXTRAL, "minimax_m2": _MINIMAX}
OWN_FIELDS: tuple[str, ...] = (
    "num_local_experts", "use_qk_norm", "qk_norm_type", "scoring_func",
)  # fmt: skip
_SPARSE = "model.layers.{}.block_sparse_moe"
TENSOR_NAMES: Names = {
    **DECODER,
    **either(
        {
            "layers.{}.experts.{}.gate_proj": _SPARSE + ".experts.{}.w1.weight",
            "layers.{}.experts.{}.up_proj": _SPARSE + ".experts.{}.w3.weight",
            "layers.{}.experts.{}.down_proj": _SPARSE + ".experts.{}.w2.weight",
            "layers.{}.router": f"{_SPARSE}.gate.weight",
            "layers.{}.router.correction": f"{_SPARSE}.e_score_correction_bias",
        },
        experts(),
        {
            "layers.{}.router": "model.layers.{}.mlp.gate.weight",
            "layers.{}.router.correction": "model.layers.{}.mlp.e_score_correction_bias",
        },
    ),
    **QK_NORMS,
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of such a ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")
    refuse_biases(config, "attention_bias", "mlp_bias")
    own: dict[str, Any] = {}
    count = fields.integer(config, "num_hidden_layers")
    if architecture == _MIXTRAL:
        router, own_rope = RouterSpec(normalise=True), rope(config, theta=1e6)
        sliding = config.get("sliding_window") is not None
        kinds = [SLIDING if sliding else FULL] * count
        fields.require(config, "scoring_func", ("softmax",), "softmax")
    else:
        fields.require(config, "scoring_func", ("sigmoid",), "sigmoid")
        router = RouterSpec(scoring=SIGMOID, correction=True, normalise=True)
        own_rope = rope(config, theta=5e6, partial=_rotated(config))
        own["qk_norm"] = _qk_norm(config)
        kinds = [FULL] * count
        _refuse_other_attention(config, count)
    refuse_other_kinds(config, kinds[0])
    mixture = mixture_of(
        config, experts="num_local_experts", width="intermediate_size", router=router
    )

    def layer(window: int | None) -> LayerSpec:
        return LayerSpec(
            attention=heads_of(config, rope=own_rope, window=window, **own), mlp=mixture
        )

    return model_of(config, "mixtral", layers_of(windows(config, kinds), layer))


def _rotated(config: Config) -> float:
    """Released configs say how many elements of a head are rotated."""
    if config.get("rotary_dim") is None:
        return 1.0
    return fields.integer(config, "rotary_dim") / fields.head_dim(config)


def _refuse_other_attention(config: Config, count: int) -> None:
    """``attn_type_list`` has a 1 for every layer; MiniMax's earlier models had linear ones."""
    kinds = config.get("attn_type_list")
    if kinds is not None and kinds != [1] * count:
        raise ConfigError(
            f"config.json: attn_type_list is {shown(kinds)}; it must have a 1 for each of the "
            f"{count} layers (num_hidden_layers), since MiniMax M2 has no other attention"
        )


def _qk_norm(config: Config) -> str:
    if not fields.flag(config, "use_qk_norm", True):
        raise ConfigError(
            "config.json: use_qk_norm is false, but MiniMax M2 always has those norms"
        )
    kind = fields.text(config, "qk_norm_type")
    if kind not in (None, "per_layer"):
        raise ConfigError(f"config.json: qk_norm_type is {kind!r}; only 'per_layer' is supported")
    return "all"
