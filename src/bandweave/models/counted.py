"""Families that are planned for and not yet run: their config.json as a ModelSpec.

What is read is what counts need: sizes, windows, experts. Fields follow transformers' class
(``llama4``). A family that is run has a file of its own. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_mixture import mixture_of
from bandweave.models.config_model import heads_of, layers_of, mlp_of, model_of
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.shown import shown


def counted_spec(config: Config) -> ModelSpec:
    """The spec of a config with its family's defaults; ``ConfigError`` where it cannot be
    counted."""
    model_type = fields.text(config, "model_type")
    layers = _FAMILIES.get(model_type or "")
    if layers is None:
        known = ", ".join(_FAMILIES)
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


#: By ``model_type``, of a multimodal model that of its ``text_config``.
_FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], tuple[LayerSpec, ...]]] = {
    "llama4_text": _llama4,
}  # fmt: skip
