"""SmolLM3: Llama's text, but every fourth layer has no rope.

Hugging Face 2025; Yang et al. 2025 (arXiv:2501.18795, layers without rope).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.blocks import decoder as build
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_model import heads_of, layers_of, model_of, silu_mlp_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, SLIDING, listed_kinds, windows
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import DECODER

__all__ = ["DEFAULTS", "MODEL_TYPES", "OWN_FIELDS", "TENSOR_NAMES", "build", "from_config"]

_SMOLLM3 = "SmolLM3ForCausalLM"

#: What transformers' config class takes for fields that a config lacks.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _SMOLLM3: {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "use_sliding_window": False, "sliding_window": None, "no_rope_layer_interval": 4,
        "eos_token_id": 128001,
    },
}  # fmt: skip

MODEL_TYPES: Mapping[str, str] = {"smollm3": _SMOLLM3}
OWN_FIELDS: tuple[str, ...] = ("no_rope_layers", "no_rope_layer_interval")
TENSOR_NAMES = DECODER


def from_config(config: Config, architecture: str) -> ModelSpec:
    """The spec of a SmolLM3 ``config.json``; ``ConfigError`` where it is not one we run."""
    config = fields.with_defaults(config, DEFAULTS[architecture])
    bias = fields.flag(config, "attention_bias", False)
    own_rope = rope(config, theta=2e6)
    mlp = silu_mlp_of(config, bias=fields.flag(config, "mlp_bias", False))

    def layer(key: tuple[bool, int | None]) -> LayerSpec:
        turned, window = key
        attention = heads_of(
            config,
            rope=own_rope if turned else None,
            window=window,
            qkv_bias=bias,
            output_bias=bias,
        )
        return LayerSpec(attention=attention, mlp=mlp)

    turned = _turned(config)
    keys = zip(turned, windows(config, _kinds(config, turned)), strict=True)
    return model_of(config, "smollm3", layers_of(list(keys), layer))


def _turned(config: Config) -> list[bool]:
    """Which layers have rope: in ``no_rope_layers``, those with a 1."""
    count, given = fields.integer(config, "num_hidden_layers"), config.get("no_rope_layers")
    if given is None:
        every = fields.integer(config, "no_rope_layer_interval")
        return [(index + 1) % every != 0 for index in range(count)]
    if not isinstance(given, list) or len(given) < count or not set(given) <= {0, 1}:
        raise ConfigError(
            f"config.json: no_rope_layers must have a 0 or a 1 for each of the {count} layers"
        )
    return [one == 1 for one in given[:count]]


def _kinds(config: Config, turned: list[bool]) -> list[str]:
    kinds = listed_kinds(config)
    used = fields.flag(config, "use_sliding_window", False)
    if not used or config.get("sliding_window") is None:
        if SLIDING in kinds:
            raise ConfigError(
                f"config.json: layer_types has {SLIDING!r}, but use_sliding_window and "
                "sliding_window say that there is no window"
            )
        return [FULL] * len(turned)
    return kinds or [FULL if one else SLIDING for one in turned]
