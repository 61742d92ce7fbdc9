"""A config.json's attention: which layers have which kind, and what each costs. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import ConfigError
from bandweave.models.config_window import FULL, SLIDING
from bandweave.models.model_shape import AttentionShape

LINEAR = "linear_attention"

# q, k and v always have biases in these; of the others `attention_bias` tells.
_QKV_BIAS = ("qwen2",)
_QK_NORM = ("qwen3", "qwen3_moe", "qwen3_next", "gemma3_text")


def layer_kinds(config: Mapping[str, Any]) -> list[str]:
    """The kind of every layer's attention."""
    count = fields.integer(config, "num_hidden_layers")
    kinds = fields.texts(config, "layer_types")
    if kinds:
        if len(kinds) != count or not set(kinds) <= {FULL, SLIDING, LINEAR}:
            raise ConfigError(f"config.json: layer_types do not name the {count} layers' kinds")
        return kinds
    if step := fields.count(config, "full_attention_interval"):
        # Qwen3-Next: every fourth layer attends
        return [LINEAR if (index + 1) % step else FULL for index in range(count)]
    if step := fields.count(config, "sliding_window_pattern"):
        # of so many layers the last sees everything
        return [SLIDING if (index + 1) % step else FULL for index in range(count)]
    full = _without_window(config, count)
    return [FULL] * full + [SLIDING] * (count - full)


def _without_window(config: Mapping[str, Any], count: int) -> int:
    """How many of the first layers see everything, where one number says so."""
    model_type = config["model_type"]
    qwen = model_type.startswith("qwen")  # whose windows are off by default, and then in all layers
    used = fields.flag(config, "use_sliding_window", not qwen)
    if not used or not fields.count(config, "sliding_window") or model_type == "llama":
        return count
    return min(count, fields.count(config, "max_window_layers")) if qwen else 0


def attention_of(config: Mapping[str, Any], kind: str) -> AttentionShape:
    """The attention of one layer of that kind."""
    if config.get("kv_lora_rank") is not None:
        return _latent(config)
    if kind == LINEAR:
        return _linear(config)
    return _heads(config, kind)


def _heads(config: Mapping[str, Any], kind: str) -> AttentionShape:
    hidden = fields.integer(config, "hidden_size")
    heads = fields.integer(config, "num_attention_heads")
    kv_heads = fields.integer(config, "num_key_value_heads", heads)
    size = fields.head_dim(config)
    model_type = config["model_type"]
    queries = heads * size
    # Qwen3-Next gates the output: its query projection is twice as wide.
    projected = queries * (2 if model_type == "qwen3_next" else 1)
    parameters = hidden * (projected + 2 * kv_heads * size) + queries * hidden
    if model_type in _QKV_BIAS or fields.flag(config, "attention_bias", False):
        parameters += queries + 2 * kv_heads * size
        if model_type in ("llama", "gpt_oss"):
            parameters += hidden
    normed = fields.flag(config, "use_qk_norm", False)
    if model_type == "minimax_m2" and normed:
        parameters += queries + kv_heads * size  # one norm over all heads
    elif model_type in _QK_NORM or (model_type == "glm4_moe" and normed):
        parameters += 2 * size
    if model_type == "gpt_oss":
        parameters += heads  # sinks
    window = fields.integer(config, "sliding_window") if kind == SLIDING else None
    pairs = 4 * heads * size  # a multiply and an add, for scores and for values
    return AttentionShape(
        kind="heads",
        heads=heads,
        kv_heads=kv_heads,
        parameters=parameters,
        kv_elements=2 * kv_heads * size,
        flops_per_pair=pairs,
        expanded_flops_per_pair=pairs,
        window=window,
    )


def _latent(config: Mapping[str, Any]) -> AttentionShape:
    """MLA (arXiv:2405.04434): the cache holds one latent and one rotated key for all heads.

    Absorbed, a head's score is a product of ``latent + rope`` numbers and its output one of
    ``latent`` numbers; expanded, of ``nope + rope`` and of ``v``.
    """
    hidden = fields.integer(config, "hidden_size")
    heads = fields.integer(config, "num_attention_heads")
    latent = fields.integer(config, "kv_lora_rank")
    nope = fields.integer(config, "qk_nope_head_dim")
    rope = fields.integer(config, "qk_rope_head_dim")
    value = fields.integer(config, "v_head_dim")
    queries = heads * (nope + rope)
    if config.get("q_lora_rank") is None:
        parameters = hidden * queries
    else:
        rank = fields.integer(config, "q_lora_rank")
        parameters = hidden * rank + rank + rank * queries
    parameters += hidden * (latent + rope) + latent + latent * heads * (nope + value)
    parameters += heads * value * hidden
    return AttentionShape(
        kind="latent",
        heads=heads,
        kv_heads=1,
        parameters=parameters,
        kv_elements=latent + rope,
        flops_per_pair=2 * heads * (2 * latent + rope),
        expanded_flops_per_pair=2 * heads * (nope + rope + value),
    )


def _linear(config: Mapping[str, Any]) -> AttentionShape:
    """Gated delta net (arXiv:2412.06464) as Qwen3-Next has it: a state instead of a cache."""
    hidden = fields.integer(config, "hidden_size")
    key_heads = fields.integer(config, "linear_num_key_heads")
    value_heads = fields.integer(config, "linear_num_value_heads")
    keys = key_heads * fields.integer(config, "linear_key_head_dim")
    values = value_heads * fields.integer(config, "linear_value_head_dim")
    kernel = fields.integer(config, "linear_conv_kernel_dim")
    parameters = hidden * (2 * keys + 2 * values + 2 * value_heads)  # q, k, v, gate; beta, decay
    parameters += kernel * (2 * keys + values) + 2 * value_heads
    parameters += fields.integer(config, "linear_value_head_dim") + values * hidden
    state = values * fields.integer(config, "linear_key_head_dim")
    return AttentionShape(
        kind="linear",
        heads=value_heads,
        kv_heads=key_heads,
        parameters=parameters,
        kv_elements=0,
        flops_per_pair=0,
        expanded_flops_per_pair=0,
        state_elements=state,
    )
