"""gpt-oss: attention with sinks and alternating windows, experts with biases and a clamped gate.

OpenAI 2025 (arXiv:2508.10925).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config
from bandweave.models.config_mixture import mixture_of
from bandweave.models.config_model import heads_of, layers_of, model_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, SLIDING, listed_kinds, windows
from bandweave.models.mlp_spec import SOFTMAX_OF_CHOSEN, GateSpec, RouterSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER, Names, Slice, either, fused

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_GPT_OSS = "GptOssForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _GPT_OSS: {
        "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880,
        "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "sliding_window": 128,
        "num_experts_per_tok": 4, "num_local_experts": 128, "attention_bias": True,
        "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "eos_token_id": None,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"gpt_oss": _GPT_OSS}
OWN_FIELDS: tuple[str, ...] = ("num_local_experts",)
_MLP = "model.layers.{}.mlp"
_GATE, _UP = "layers.{}.experts.{}.gate_proj", "layers.{}.experts.{}.up_proj"
_DOWN = "layers.{}.experts.{}.down_proj"


def _columns(layer: LayerSpec) -> int:
    """Rows of gate and up take turns, one by one."""
    return layer.mlp.intermediate_size


TENSOR_NAMES: Names = {
    **DECODER,
    "layers.{}.sinks": "model.layers.{}.self_attn.sinks",
    "layers.{}.router": f"{_MLP}.router.weight",
    "layers.{}.router.bias": f"{_MLP}.router.bias",
    **either(  # transposed where they are bf16, as rows in MXFP4
        {
            **fused(f"{_MLP}.experts.gate_up_proj", _GATE, _UP, groups=_columns, entry=True,
                    transposed=True),
            _DOWN: Slice(tensor=f"{_MLP}.experts.down_proj", entry=True, transposed=True),
        },
        {
            **fused(f"{_MLP}.experts.gate_up_proj", _GATE, _UP, groups=_columns, entry=True),
            _DOWN: Slice(tensor=f"{_MLP}.experts.down_proj", entry=True),
        },
    ),
    **fused(f"{_MLP}.experts.gate_up_proj_bias", f"{_GATE}.bias", f"{_UP}.bias",
            groups=_columns, entry=True),
    f"{_DOWN}.bias": Slice(tensor=f"{_MLP}.experts.down_proj_bias", entry=True),
}  # fmt: skip


#: The rope of a config that says nothing of one.
_ROPE: Mapping[str, Any] = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of such a ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")
    if not config.get("rope_scaling") and config.get("rope_parameters") is None:
        config["rope_parameters"] = _ROPE
    own_rope, bias = rope(config, theta=150000.0), fields.flag(config, "attention_bias", True)
    mixture = mixture_of(
        config,
        experts="num_local_experts",
        width="intermediate_size",
        router=RouterSpec(scoring=SOFTMAX_OF_CHOSEN, logit_bias=True),
        gate=GateSpec(
            function="clamped_silu",
            limit=fields.factor(config, "swiglu_limit"),
            alpha=fields.factor(config, "swiglu_alpha"),
        ),
        bias=True,
    )
    count = fields.integer(config, "num_hidden_layers")
    kinds = listed_kinds(config) or [FULL if layer % 2 else SLIDING for layer in range(count)]

    def layer(window: int | None) -> LayerSpec:
        attention = heads_of(
            config, rope=own_rope, window=window, qkv_bias=bias, output_bias=bias, sinks=True
        )
        return LayerSpec(attention=attention, mlp=mixture)

    return model_of(config, "gpt_oss", layers_of(windows(config, kinds), layer))
