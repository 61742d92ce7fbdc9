"""Llama 2 and 3.x, Mistral, TinyLlama, SmolLM: one text.

Touvron et al. 2023 (arXiv:2307.09288), Llama team 2024 (arXiv:2407.21783), Jiang et al. 2023
(arXiv:2310.06825, the sliding window). Of a multimodal Mistral (Small 3.1 and later) this is what
reads and writes text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.attention_spec import HeadsSpec
from bandweave.models.blocks import decoder
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import refuse_biases, text_of
from bandweave.models.config_rope import original_length, rope
from bandweave.models.config_window import FULL, SLIDING, refuse_other_kinds, windows
from bandweave.models.graph import Graph
from bandweave.models.mlp_spec import MlpSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER

_LLAMA, _MISTRAL = "LlamaForCausalLM", "MistralForCausalLM"
_MINISTRAL, _MULTIMODAL = "Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"

#: What transformers' config classes take for fields that a config lacks, by architecture.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _LLAMA: {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        "eos_token_id": 2,
    },
    _MISTRAL: {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "sliding_window": 4096, "eos_token_id": 2,
    },
    _MINISTRAL: {
        "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 34, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "sliding_window": None,
        "eos_token_id": 2,
    },
    _MULTIMODAL: {"eos_token_id": 2},  # the others are those of its text_config
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {
    "llama": _LLAMA, "mistral": _MISTRAL, "ministral3": _MINISTRAL, "mistral3": _MULTIMODAL,
}  # fmt: skip
#: Architectures of a multimodal model's text by its ``model_type``.
_TEXTS: Mapping[str, str] = {"mistral": _MISTRAL, "ministral3": _MINISTRAL}
OWN_FIELDS: tuple[str, ...] = ("text_config",)
TENSOR_NAMES = DECODER

#: The rope of a Ministral 3 whose config says nothing of one.
_MINISTRAL_ROPE: Mapping[str, Any] = {
    "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "beta_fast": 32.0,
    "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 16384,
}  # fmt: skip


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a Llama-like ``config.json``; ``ConfigError`` where it is not one we run."""
    kind = fields.text(fields.table(config, "text_config"), "model_type")
    whole = {_MULTIMODAL: _TEXTS.get(kind or "", _MISTRAL)}
    config, architecture = text_of(
        config, architecture, whole, OWN_FIELDS, tied=True, types=tuple(_TEXTS)
    )
    config = fields.with_defaults(config, DEFAULTS[architecture])
    fields.require(config, "hidden_act", ("silu", "swish"), "silu")  # two names of one function
    bias, run_length = False, None
    if architecture == _MINISTRAL:
        if not config.get("rope_scaling") and config.get("rope_parameters") is None:
            config["rope_parameters"] = _MINISTRAL_ROPE
        run_length = _plain_length(config)
    if architecture == _LLAMA:
        bias = fields.flag(config, "attention_bias", False)
        sliding = _llama_window(config)
    else:
        refuse_biases(config, "attention_bias", "mlp_bias")
        sliding = _mistral_window(config)
    layer = LayerSpec(
        attention=HeadsSpec(
            num_heads=fields.integer(config, "num_attention_heads"),
            head_dim=fields.head_dim(config),
            num_kv_heads=fields.kv_heads(config),
            rope=rope(config),
            window=sliding,
            qkv_bias=bias,
            output_bias=bias,
            run_length=run_length,
        ),
        mlp=MlpSpec(
            intermediate_size=fields.integer(config, "intermediate_size"),
            bias=fields.flag(config, "mlp_bias", False),
        ),
    )
    return ModelSpec(
        family="llama",
        hidden_size=fields.integer(config, "hidden_size"),
        vocab_size=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings"),
        norm_eps=fields.epsilon(config, "rms_norm_eps"),
        layers=(layer,) * fields.integer(config, "num_hidden_layers"),
        tied_embeddings=fields.flag(config, "tie_word_embeddings", False),
    )


def _plain_length(config: Config) -> int | None:
    """Of Ministral 3: the positions whose queries are not scaled by where they stand."""
    parameters = fields.table(config, "rope_scaling") or fields.table(config, "rope_parameters")
    if parameters.get("llama_4_scaling_beta") == 0:
        return None
    fields.number(parameters, "llama_4_scaling_beta")
    return original_length(parameters, config)


def _llama_window(config: Config) -> int | None:
    """Llama's class has no window. transformers' cache obeys the field all the same while its
    masks do not, so that answers depend on how a prompt is read: refused where it can show."""
    refuse_other_kinds(config, FULL)
    if config.get("sliding_window") is not None and windows(config, [SLIDING]) != [None]:
        raise ConfigError(
            f"config.json: sliding_window is {config['sliding_window']}, but models of the "
            f"architecture {_LLAMA} have no window; Mistral's have one"
        )
    return None


def _mistral_window(config: Config) -> int | None:
    """All layers have the window, unless it is null."""
    if config.get("sliding_window") is None:
        refuse_other_kinds(config, FULL)
        return None
    (size,) = windows(config, [SLIDING])
    if size is None:
        return None
    if not fields.flag(config, "use_sliding_window", True):
        raise ConfigError(
            f"config.json: use_sliding_window is false, but sliding_window is {size}, which a "
            f"model of the architecture {_MISTRAL} obeys; make it null for a model without a window"
        )
    refuse_other_kinds(config, SLIDING)
    return size


def build(spec: ModelSpec) -> Graph:
    """The operations of one step."""
    return decoder(spec)
