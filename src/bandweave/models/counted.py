"""Families that are planned for and not yet run: their config.json as a ModelSpec.

What is read is what counts need: sizes, windows, experts. Fields follow the reference modelling
files of transformers (``modeling_qwen2``, ``modeling_qwen3_moe``, ``modeling_mixtral``,
``modeling_deepseek_v3``, ``modeling_gpt_oss``, ``modeling_glm4_moe``, ``modeling_gemma3``,
``modeling_qwen3_next``). Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import ConfigError
from bandweave.models.config_window import FULL, SLIDING
from bandweave.models.spec import (
    Attention,
    HeadsSpec,
    LatentSpec,
    LayerSpec,
    LinearSpec,
    MixtureSpec,
    Mlp,
    MlpSpec,
    ModelSpec,
    RouterSpec,
)
from bandweave.shown import shown

#: Families whose counts are right; others are refused rather than guessed.
MODEL_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma3_text", "mixtral", "qwen3_moe", "qwen3_next",
    "gpt_oss", "glm4_moe", "minimax_m2", "deepseek_v2", "deepseek_v3", "kimi_k2",
)  # fmt: skip

_LINEAR = "linear_attention"
_QK_NORM = ("qwen3", "qwen3_moe", "qwen3_next", "gemma3_text")
_ROUTER_BIAS = ("deepseek_v3", "kimi_k2", "glm4_moe", "minimax_m2", "gpt_oss")


def counted_spec(config: Mapping[str, Any]) -> ModelSpec:
    """The spec of a config with its family's defaults; ``ConfigError`` where it cannot be
    counted."""
    model_type = fields.text(config, "model_type")
    if model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise ConfigError(
            f"config.json: model_type {shown(model_type)} is not known; known: {known}"
        )
    try:
        return ModelSpec(
            family=model_type,
            hidden_size=fields.integer(config, "hidden_size"),
            vocab_size=fields.integer(config, "vocab_size"),
            context_length=fields.integer(config, "max_position_embeddings", 2048),
            norm_eps=fields.number(config, "rms_norm_eps", 1e-6),
            layers=_layers(config),
            tied_embeddings=fields.flag(
                config, "tie_word_embeddings", model_type.startswith("gemma")
            ),
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config.json: {error}") from error


def _layers(config: Mapping[str, Any]) -> tuple[LayerSpec, ...]:
    """All layers; those that are alike are one object."""
    experts = _first(config, "n_routed_experts", "num_experts", "num_local_experts")
    known: dict[tuple[str, bool], LayerSpec] = {}
    result = []
    for index, kind in enumerate(_kinds(config)):
        routes = experts > 0 and _routes(config, index)
        if (kind, routes) not in known:
            known[kind, routes] = LayerSpec(
                attention=_attention(config, kind),
                mlp=_mlp(config, experts if routes else 0),
                form="both" if config["model_type"] == "gemma3_text" else "pre",
            )
        result.append(known[kind, routes])
    return tuple(result)


# --- attention ---


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """The kind of every layer's attention."""
    count = fields.integer(config, "num_hidden_layers")
    kinds = fields.texts(config, "layer_types")
    if kinds:
        if len(kinds) != count or not set(kinds) <= {FULL, SLIDING, _LINEAR}:
            raise ConfigError(f"config.json: layer_types do not name the {count} layers' kinds")
        return kinds
    if step := fields.count(config, "full_attention_interval"):
        # Qwen3-Next: every fourth layer attends
        return [_LINEAR if (index + 1) % step else FULL for index in range(count)]
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


def _attention(config: Mapping[str, Any], kind: str) -> Attention:
    if config.get("kv_lora_rank") is not None:
        given = config.get("q_lora_rank") is not None
        return LatentSpec(
            num_heads=fields.integer(config, "num_attention_heads"),
            q_rank=fields.integer(config, "q_lora_rank") if given else None,
            kv_rank=fields.integer(config, "kv_lora_rank"),
            nope_dim=fields.integer(config, "qk_nope_head_dim"),
            rope_dim=fields.integer(config, "qk_rope_head_dim"),
            v_dim=fields.integer(config, "v_head_dim"),
        )
    if kind == _LINEAR:
        return LinearSpec(
            key_heads=fields.integer(config, "linear_num_key_heads"),
            value_heads=fields.integer(config, "linear_num_value_heads"),
            key_dim=fields.integer(config, "linear_key_head_dim"),
            value_dim=fields.integer(config, "linear_value_head_dim"),
            conv_kernel=fields.integer(config, "linear_conv_kernel_dim"),
        )
    model_type = config["model_type"]
    bias = fields.flag(config, "attention_bias", False)
    return HeadsSpec(
        num_heads=fields.integer(config, "num_attention_heads"),
        num_kv_heads=fields.kv_heads(config),
        head_dim=fields.head_dim(config),
        window=fields.integer(config, "sliding_window") if kind == SLIDING else None,
        qkv_bias=bias or model_type == "qwen2",  # whose q, k and v always have biases
        output_bias=bias and model_type in ("llama", "qwen3", "gpt_oss"),
        qk_norm=_qk_norm(config),
        sinks=model_type == "gpt_oss",
        output_gate=model_type == "qwen3_next",
    )


def _qk_norm(config: Mapping[str, Any]) -> str:
    model_type = config["model_type"]
    if model_type in _QK_NORM:
        return "head"
    if not fields.flag(config, "use_qk_norm", False):
        return ""
    return {"minimax_m2": "all", "glm4_moe": "head"}.get(model_type, "")


# --- MLPs ---


def _mlp(config: Mapping[str, Any], experts: int) -> Mlp:
    """A mixture of so many experts, or a dense MLP."""
    if not experts:
        return MlpSpec(
            intermediate_size=fields.integer(config, "intermediate_size"),
            bias=fields.flag(config, "mlp_bias", False),
        )
    width = _first(config, "moe_intermediate_size", "intermediate_size")
    top_k = fields.integer(config, "num_experts_per_tok")
    if top_k > experts:
        raise ConfigError(
            f"config.json: num_experts_per_tok is {top_k}, but there are {experts} experts"
        )
    model_type = config["model_type"]
    shared = _first(config, "shared_expert_intermediate_size")
    return MixtureSpec(
        num_experts=experts,
        top_k=top_k,
        intermediate_size=width,
        shared_size=shared or width * fields.count(config, "n_shared_experts"),
        shared_gate=model_type == "qwen3_next",
        router=RouterSpec(correction=model_type in _ROUTER_BIAS),
        bias=model_type == "gpt_oss",  # of every output of gate, up and down
    )


def _routes(config: Mapping[str, Any], index: int) -> bool:
    if index < fields.count(config, "first_k_dense_replace"):
        return False
    dense = config.get("mlp_only_layers")
    if dense is not None and not isinstance(dense, list):
        raise ConfigError(
            f"config.json: mlp_only_layers is {shown(dense)}; it must be a list of layers"
        )
    if index in (dense or ()):
        return False
    step = _first(config, "decoder_sparse_step", "moe_layer_freq") or 1
    return (index + 1) % step == 0 if "decoder_sparse_step" in config else index % step == 0


def _first(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that there is and that is not 0; 0 where there is none."""
    return next((value for name in names if (value := fields.count(config, name))), 0)
