"""What architectures have in common: sizes, rope and experts as fields of a config.json."""

from __future__ import annotations

import math
from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.config_window import FULL, SLIDING
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.limits import MOST_LAYERS

_EMBEDDING = "token_embd.weight"
_DIVISORS = {"rope_freqs.weight": None, "rope_factors_long.weight": "long_factor",
             "rope_factors_short.weight": "short_factor"}  # fmt: skip


def sizes(data: Metadata, *, eps: str = "attention.layer_norm_rms_epsilon") -> dict[str, Any]:
    """The fields that every model has; ``ConfigError`` names what is missing or wrong."""
    if _EMBEDDING not in data.shapes:
        raise ConfigError(f"there is no tensor {_EMBEDDING}; is this a whole model?")
    heads, hidden = data.size("attention.head_count"), data.size("embedding_length")
    if not heads:
        raise ConfigError("the number of heads is 0; it must be at least 1")
    head = data.size("attention.key_length", hidden // heads)
    if not head:
        raise ConfigError("a head has 0 elements; it must have at least 1")
    layers = data.size("block_count") - data.size("nextn_predict_layers", 0)
    if not 1 <= layers <= MOST_LAYERS:
        raise ConfigError(f"it has {layers} layers; there may be 1 to {MOST_LAYERS}")
    given: dict[str, Any] = {
        "vocab_size": data.shapes[_EMBEDDING][0],
        "tie_word_embeddings": "output.weight" not in data.shapes,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": data.size("attention.head_count_kv", heads),
        "head_dim": head,
        "intermediate_size": data.size("feed_forward_length", 0) or 1,
        "max_position_embeddings": data.size("context_length"),
        "rms_norm_eps": data.number(eps),
        "rope_theta": data.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
    }
    rotated = rope_dim(data, head)
    if rotated != head and not data.has("attention.kv_lora_rank"):
        given["partial_rotary_factor"] = rotated / head  # families have a word on it
    values = data.size("attention.value_length", head)
    if values != head and not data.has("attention.kv_lora_rank"):
        raise ConfigError(
            f"keys have {head} elements and values {values}; models with both alike can be run"
        )
    scaling = rope_scaling(data, given)
    if scaling is not None:
        given["rope_scaling"] = scaling
        if "original_max_position_embeddings" in scaling:  # families have a default of their own
            given["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    return given


def rope_dim(data: Metadata, whole: int) -> int:
    """How many elements of a head are rotated."""
    return data.size("rope.dimension_count", whole)


def rope_scaling(data: Metadata, given: dict[str, Any]) -> dict[str, Any] | None:
    """How rope is stretched, from the fields and from the tensors that divide its frequencies."""
    kind = data.text("rope.scaling.type")
    original = data.size("rope.scaling.original_context_length", 0)
    divisors = {name: list(data.vector(name)) for name in _DIVISORS if name in data.shapes}
    if "rope_freqs.weight" in divisors:  # Llama 3's, worked out
        same = divisors["rope_freqs.weight"]
        return {
            "rope_type": "longrope", "long_factor": same, "short_factor": same,
            "attention_factor": 1.0, "original_max_position_embeddings": original or 8192,
        }  # fmt: skip
    if divisors:
        longest, original = given["max_position_embeddings"], original or 4096
        result: dict[str, Any] = {
            "rope_type": "longrope", "original_max_position_embeddings": original,
            "factor": longest / original,
        }  # fmt: skip
        for name, found in divisors.items():
            result[str(_DIVISORS[name])] = found
        attention = data.number("rope.scaling.attn_factor")
        return result if attention is None else {**result, "attention_factor": attention}
    factor = data.number("rope.scaling.factor", data.number("rope.scale_linear"))
    if kind == "yarn":
        return _yarn(data, factor or 1.0, original or given["max_position_embeddings"])
    if (data.number("rope.scaling.attn_factor") or 1.0) != 1:
        raise ConfigError(
            "rope.scaling.attn_factor multiplies cosines and sines, which can be run beside 'yarn' "
            "and 'longrope' alone"
        )
    if kind in (None, "none", "longrope") and not factor:
        return None
    if kind in (None, "linear"):
        return {"rope_type": "linear", "factor": factor or 1.0}
    if kind == "none":
        return None
    raise ConfigError(f"rope is scaled as {kind!r}; 'linear', 'yarn' and 'longrope' can be run")


def _yarn(data: Metadata, factor: float, original: int) -> dict[str, Any]:
    """YaRN's fields. Cosines and sines grow by a number that follows from the factor, unless the
    file says that scores do, and by one of the file's own."""
    result: dict[str, Any] = {
        "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
    }  # fmt: skip
    if data.number("rope.scaling.yarn_ext_factor", 1.0) != 1:
        raise ConfigError(
            "rope.scaling.yarn_ext_factor must be 1; frequencies that are mixed in another way "
            "cannot be run"
        )
    for ours, theirs in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        value = data.number(f"rope.scaling.{theirs}")
        if value is not None:
            result[ours] = value
    growth = 10 * (data.number("rope.scaling.yarn_log_multiplier") or 0.0)
    if growth:
        # Ten times as much is what configs call so; float32 has seven digits of it.
        result["mscale"] = result["mscale_all_dim"] = float(f"{growth:.6g}")
    own = data.number("rope.scaling.attn_factor", data.number("rope.scaling.yarn_attn_factor"))
    if own is not None and own != 1:
        grown = 1.0 if growth or factor <= 1 else 0.1 * math.log(factor) + 1
        result["attention_factor"] = own * grown
    return result


def mixture(data: Metadata) -> dict[str, Any]:
    """How many experts there are, how many a token goes to, and how wide they are."""
    given: dict[str, Any] = {
        "num_experts": data.size("expert_count"),
        "num_experts_per_tok": data.size("expert_used_count"),
    }
    width = data.size("expert_feed_forward_length", 0)
    if width:
        given["moe_intermediate_size"] = width
    return given


def first_mixture(data: Metadata, layers: int) -> int:
    """The number of the first layer that has a router: those before it have none."""
    routed = (n for n in range(layers) if f"blk.{n}.ffn_gate_inp.weight" in data.shapes)
    return next(routed, data.size("leading_dense_block_count", 0))


def window_kinds(data: Metadata, period: int) -> list[str]:
    """The kind of each layer's attention: as the file lists them, or every ``period``-th sees
    everything."""
    layers = data.size("block_count")
    listed = data.flags("attention.sliding_window_pattern")
    if listed is not None:
        if len(listed) < layers:
            raise ConfigError(
                f"attention.sliding_window_pattern has {len(listed)} entries for {layers} layers"
            )
        return [SLIDING if one else FULL for one in listed[:layers]]
    period = data.size("attention.sliding_window_pattern", period) or period
    return [FULL if (layer + 1) % period == 0 else SLIDING for layer in range(layers)]
