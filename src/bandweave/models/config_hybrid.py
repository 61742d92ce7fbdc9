"""Qwen's hybrids of a ``config.json``: which layers have a cache and which a recurrent state, and
what either is. Knows no family and no files."""

from __future__ import annotations

from bandweave.models import config as fields
from bandweave.models.attention_spec import Attention, LinearSpec
from bandweave.models.config import Config
from bandweave.models.config_model import heads_of
from bandweave.models.config_rope import rope
from bandweave.models.config_window import FULL, check_kinds

LINEAR = "linear_attention"


def kinds_of(config: Config) -> list[str]:
    """The kind of each layer: ``layer_types``, else one in ``full_attention_interval`` layers has a
    cache, the last of them."""
    count = fields.integer(config, "num_hidden_layers")
    kinds = fields.texts(config, "layer_types")
    if not kinds:
        step = fields.integer(config, "full_attention_interval", 4)
        return [LINEAR if (index + 1) % step else FULL for index in range(count)]
    check_kinds(kinds, count, (FULL, LINEAR))
    return kinds


def attention_of(config: Config) -> dict[str, Attention]:
    """What a layer of each kind has. Heads with a cache have a gate, whatever the config says."""
    fields.require(config, "attn_output_gate", (True,), True)
    bias = fields.flag(config, "attention_bias", False)
    heads = heads_of(
        config,
        rope=rope(config, partial=0.25),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        output_gate=True,
    )
    linear = LinearSpec(
        key_heads=fields.integer(config, "linear_num_key_heads"),
        value_heads=fields.integer(config, "linear_num_value_heads"),
        key_dim=fields.integer(config, "linear_key_head_dim"),
        value_dim=fields.integer(config, "linear_value_head_dim"),
        conv_kernel=fields.integer(config, "linear_conv_kernel_dim"),
    )
    return {FULL: heads, LINEAR: linear}
