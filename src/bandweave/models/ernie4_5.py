"""ERNIE 4.5, dense and mixtures of experts: Llama's text with an interleaved rope; experts are
chosen by softmax scores with a correction.

Baidu 2025 (ERNIE 4.5 Technical Report).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import refuse_biases
from bandweave.models.config_mixture import mixture_of
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, refuse_other_kinds
from bandweave.models.mlp_spec import RouterSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, Names, either, experts, shared_expert
from bandweave.shown import shown

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_DENSE, _MOE = "Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM"

#: What transformers' config classes take for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _DENSE: {
        "vocab_size": 103424, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "use_bias": False, "head_dim": 128, "eos_token_id": 2,
    },
    _MOE: {
        "vocab_size": 103424, "hidden_size": 2560, "intermediate_size": 12288,
        "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "use_bias": False, "moe_intermediate_size": 1536, "moe_k": 6,
        "moe_num_experts": 64, "moe_num_shared_experts": 2, "moe_layer_start_index": 1,
        "moe_layer_end_index": -1, "moe_layer_interval": 1, "eos_token_id": 2,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"ernie4_5": _DENSE, "ernie4_5_moe": _MOE}
OWN_FIELDS: tuple[str, ...] = ("use_bias", "num_experts")
_LEAST_SUM = 1e-9  # of the weights of a token's experts, far below what occurs
_MLP = "model.layers.{}.mlp"
TENSOR_NAMES: Names = {
    **DECODER,
    **experts(),
    **either(
        {"layers.{}.router.correction": f"{_MLP}.moe_statics.e_score_correction_bias"},
        {"layers.{}.router.correction": f"{_MLP}.gate.moe_statics.e_score_correction_bias"},
    ),
    "layers.{}.router": f"{_MLP}.gate.weight",
    **shared_expert(f"{_MLP}.shared_experts"),
}


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of an ERNIE ``config.json``; ``ConfigError`` where it is not one we run."""
    for own, other in (("moe_num_experts", "num_experts"), ("moe_k", "num_experts_per_tok")):
        if architecture == _MOE and config.get(own) is None and config.get(other) is not None:
            config = {**config, own: config[other]}  # transformers' names of the same fields
    config = fields.with_defaults(config, DEFAULTS[architecture])
    refuse_biases(config, "attention_bias", "mlp_bias")
    refuse_other_kinds(config, FULL)
    bias, mixed = fields.flag(config, "use_bias", False), architecture == _MOE
    if mixed and bias:
        raise ConfigError(
            "config.json: use_bias is true, which models of this family with experts are not run "
            "with"
        )
    if not mixed and config.get("num_experts"):
        raise ConfigError(
            f"config.json: num_experts is {shown(config['num_experts'])}, but a model of the "
            f"architecture {architecture} has no experts"
        )
    own_rope = rope(config, theta=500000.0, interleaved=True)
    attention = heads_of(config, rope=own_rope, qkv_bias=bias, output_bias=bias)
    dense = silu_mlp_of(config, bias=bias)
    if not mixed:
        layers = (LayerSpec(attention=attention, mlp=dense),)
        return model_of(config, "ernie4_5", layers * fields.integer(config, "num_hidden_layers"))
    if fields.number(config, "moe_norm_min", 1e-12) > _LEAST_SUM:
        raise ConfigError(
            f"config.json: moe_norm_min is {shown(config['moe_norm_min'])}, a bound of the sum of "
            f"experts' weights that could be reached; above {_LEAST_SUM:g} it is not supported"
        )
    width = fields.integer(config, "moe_intermediate_size")
    mixture = mixture_of(
        config,
        experts="moe_num_experts",
        top_k="moe_k",
        router=RouterSpec(correction=True, normalise=True),
        shared_size=width * fields.count(config, "moe_num_shared_experts"),
    )

    def layer(routes: bool) -> LayerSpec:
        return LayerSpec(attention=attention, mlp=mixture if routes else dense)

    return model_of(config, "ernie4_5", layers_of(_sparse(config), layer))


def _sparse(config: Config) -> list[bool]:
    """For each layer whether it has experts: every ``moe_layer_interval``-th of those from
    ``moe_layer_start_index`` to ``moe_layer_end_index``, of which -1 is the last layer."""
    count = fields.integer(config, "num_hidden_layers")
    first, step = (
        fields.count(config, "moe_layer_start_index"), fields.integer(config, "moe_layer_interval"),
    )  # fmt: skip
    last = config["moe_layer_end_index"]
    last = count - 1 if last == -1 else last
    if type(last) is not int or not 0 <= last < count:
        raise ConfigError(
            f"config.json: moe_layer_end_index is {shown(last)}; it must be -1, or one of the "
            f"layers 0 to {count - 1} (num_hidden_layers)"
        )
    return [first <= layer <= last and (layer + 1) % step == 0 for layer in range(count)]
