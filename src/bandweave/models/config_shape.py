"""From a Hugging Face ``config.json`` to a ModelShape, whether or not the engine runs the model.

Counts follow the reference modelling files of transformers (``modeling_llama``, ``modeling_qwen2``,
``modeling_qwen3_moe``, ``modeling_mixtral``, ``modeling_deepseek_v3``, ``modeling_gpt_oss``,
``modeling_glm4_moe``, ``modeling_gemma3``, ``modeling_qwen3_next``). Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import ConfigError
from bandweave.models.config_attention import attention_of, layer_kinds
from bandweave.models.model_shape import LayerShape, ModelShape
from bandweave.models.registry import spec_from_config, with_family_defaults
from bandweave.shown import shown

#: Families whose counts are right; others are refused rather than guessed.
MODEL_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma3_text", "mixtral", "qwen3_moe", "qwen3_next",
    "gpt_oss", "glm4_moe", "minimax_m2", "deepseek_v2", "deepseek_v3", "kimi_k2",
)  # fmt: skip

_GATED = 3  # matrices of a gated FFN: gate, up, down
_STORED = {"fp8": "fp8", "mxfp4": "mxfp4"}
_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def shape_from_config(config: Mapping[str, Any], *, name: str = "model") -> ModelShape:
    """The shape of a parsed config.json; ``ConfigError`` where it cannot be counted.

    A multimodal config counts as its ``text_config``: what a token of text reads.
    """
    runs = _runs(config)
    config = with_family_defaults({**config, **fields.table(config, "text_config")})
    model_type = fields.text(config, "model_type")
    if model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise ConfigError(
            f"config.json: model_type {shown(model_type)} is not known; known: {known}"
        )
    hidden = fields.integer(config, "hidden_size")
    vocab = fields.integer(config, "vocab_size")
    tied = fields.flag(config, "tie_word_embeddings", model_type.startswith("gemma"))
    architectures = fields.texts(config, "architectures")
    return ModelShape(
        name=name,
        architecture=architectures[0] if architectures else model_type,
        runs_on_bandweave=runs,
        hidden=hidden,
        vocab=vocab,
        context_length=fields.integer(config, "max_position_embeddings", 2048),
        layers=_layers(config),
        embedding_parameters=vocab * hidden,
        head_parameters=vocab * hidden,
        tied=tied,
        final_norm_parameters=hidden,
        stored_format=_stored_format(config),
    )


def _runs(config: Mapping[str, Any]) -> bool:
    try:
        spec_from_config(config)
    except ConfigError:
        return False
    return True


def _stored_format(config: Mapping[str, Any]) -> str:
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    if isinstance(method, str) and method in _STORED:
        return _STORED[method]
    dtype = config.get("dtype") or config.get("torch_dtype")
    return _DTYPES.get(dtype, "bf16") if isinstance(dtype, str) else "bf16"


def _layers(config: Mapping[str, Any]) -> tuple[LayerShape, ...]:
    """All layers; those that are alike are one object."""
    experts = _first(config, "n_routed_experts", "num_experts", "num_local_experts")
    known: dict[tuple[str, bool], LayerShape] = {}
    result = []
    for index, kind in enumerate(layer_kinds(config)):
        routes = experts > 0 and _routes(config, index)
        if (kind, routes) not in known:
            known[kind, routes] = _layer(config, kind, experts if routes else 0)
        result.append(known[kind, routes])
    return tuple(result)


def _layer(config: Mapping[str, Any], kind: str, experts: int) -> LayerShape:
    """A layer with so many experts, or a dense one."""
    hidden = fields.integer(config, "hidden_size")
    attention = attention_of(config, kind)
    norms = (4 if config["model_type"] == "gemma3_text" else 2) * hidden
    if not experts:
        width = fields.integer(config, "intermediate_size")
        bias = 2 * width + hidden if fields.flag(config, "mlp_bias", False) else 0
        return LayerShape(
            attention=attention,
            dense_parameters=_GATED * hidden * width + bias,
            dense_width=width,
            norm_parameters=norms,
        )
    width = _first(config, "moe_intermediate_size", "intermediate_size")
    top_k = fields.integer(config, "num_experts_per_tok")
    if top_k > experts:
        raise ConfigError(
            f"config.json: num_experts_per_tok is {top_k}, but there are {experts} experts"
        )
    # gpt-oss: a bias for every output of gate, up and down, and for the router.
    biased = config["model_type"] == "gpt_oss"
    shared_width = _first(config, "shared_expert_intermediate_size")
    shared_width = shared_width or width * fields.count(config, "n_shared_experts")
    shared = _GATED * hidden * shared_width
    if config["model_type"] == "qwen3_next":
        shared += hidden  # the shared expert's own gate
    return LayerShape(
        attention=attention,
        shared_parameters=shared,
        router_parameters=experts * (hidden + (1 if biased or _has_router_bias(config) else 0)),
        expert_parameters=_GATED * hidden * width + (2 * width + hidden if biased else 0),
        expert_width=width,
        experts=experts,
        top_k=top_k,
        norm_parameters=norms,
    )


def _has_router_bias(config: Mapping[str, Any]) -> bool:
    return config["model_type"] in ("deepseek_v3", "kimi_k2", "glm4_moe", "minimax_m2")


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
