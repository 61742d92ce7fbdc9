"""Families that are planned for and not yet run: their config.json as a ModelSpec.

What is read is what counts need: sizes, windows, experts. Fields follow transformers' classes. A
family that is run has a file of its own; one whose layers no ModelSpec has is in
``counted_shapes``. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models import deepseek
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_mixture import mixture_of
from bandweave.models.config_model import heads_of, layers_of, mlp_of, model_of
from bandweave.models.counted_shapes import model_types
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.shown import shown


def counted_spec(config: Config) -> ModelSpec:
    """The spec of a config with its family's defaults; ``ConfigError`` where it cannot be
    counted."""
    model_type = fields.text(config, "model_type")
    layers = _FAMILIES.get(model_type or "")
    if layers is None:
        known = ", ".join((*_FAMILIES, *model_types()))
        raise ConfigError(
            f"config.json: model_type {shown(model_type)} is not known; beside the families that "
            f"can be run, planned for are {known}"
        )
    try:
        return model_of(config, str(model_type), layers(config))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config.json: {error}") from error


# --- Llama 4 ---


def _llama4(config: Config) -> tuple[LayerSpec, ...]:
    """Three layers that see a chunk to one that sees everything; every layer, or every second one,
    a mixture. A chunk counts as a window of its size, which it is at its end."""
    count = fields.integer(config, "num_hidden_layers")
    step = fields.integer(config, "interleave_moe_layer_step", 1)
    chunk = fields.integer(config, "attention_chunk_size", 8192)
    width = fields.integer(config, "intermediate_size")
    mixture = mixture_of(
        config, experts="num_local_experts", width="intermediate_size", shared_size=width
    )
    wide = fields.integer(config, "intermediate_size_mlp", width)
    dense = mlp_of({**config, "intermediate_size": wide})
    bias = fields.flag(config, "attention_bias", False)

    def layer(key: tuple[bool, bool]) -> LayerSpec:
        whole, routes = key
        window = None if whole else chunk
        attention = heads_of(config, window=window, qkv_bias=bias, output_bias=bias)
        return LayerSpec(attention=attention, mlp=mixture if routes else dense)

    keys = [((index + 1) % 4 == 0, (index + 1) % step == 0) for index in range(count)]
    return layers_of(keys, layer)


# --- Qwen3-VL: as its model of text ---


def _normed(config: Config) -> tuple[LayerSpec, ...]:
    layer = LayerSpec(attention=heads_of(config, qk_norm="head"), mlp=mlp_of(config))
    return (layer,) * fields.integer(config, "num_hidden_layers")


def _normed_mixture(config: Config) -> tuple[LayerSpec, ...]:
    mixture = mixture_of(config, experts="num_experts")
    layer = LayerSpec(attention=heads_of(config, qk_norm="head"), mlp=mixture)
    return (layer,) * fields.integer(config, "num_hidden_layers")


# --- Hunyuan A13B, Mistral Large 3 ---


def _hunyuan(config: Config) -> tuple[LayerSpec, ...]:
    """Sizes may be lists, with a value for each layer; they are the same for all."""
    count = fields.integer(config, "num_hidden_layers")
    names = ("num_experts", "moe_topk", "moe_intermediate_size", "num_shared_expert")
    scalars = {name: _same(config, name) for name in names}
    config = {**config, **scalars}
    shared = fields.integer(config, "num_shared_expert", 1)
    shared *= fields.integer(config, "moe_intermediate_size")
    mixture = mixture_of(config, experts="num_experts", top_k="moe_topk", shared_size=shared)
    return (LayerSpec(attention=heads_of(config, qk_norm="head"), mlp=mixture),) * count


def _same(config: Config, name: str) -> Any:
    value = config.get(name)
    if not isinstance(value, list):
        return value
    if not value or any(one != value[0] for one in value):
        raise ConfigError(f"config.json: {name} is {shown(value)}; its values must be the same")
    return value[0]


def _mistral_large_3(config: Config) -> tuple[LayerSpec, ...]:
    known = {**config, "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
    return deepseek.from_config(known, "DeepseekV3ForCausalLM").layers


#: By ``model_type``, of a multimodal model that of its ``text_config``.
_FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], tuple[LayerSpec, ...]]] = {
    "llama4_text": _llama4,
    "qwen3_vl_text": _normed,
    "qwen3_vl_moe_text": _normed_mixture,
    "hunyuan_v1_moe": _hunyuan,
    "mistral_large_3": _mistral_large_3,
}  # fmt: skip
