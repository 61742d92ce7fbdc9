"""The files: one small Llama for each type of blocks, and hybrids, whose bits come from seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf

from bandweave.models.registry import spec_from_config
from tests.helpers.gguf_mixed import encoded_as
from tests.helpers.gguf_models import Array, Encode, write_gguf
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import F32, random_tensors

KINDS = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip
PROMPT = (3, 250, 17, 99, 128, 5, 301, 64, 2, 77, 400, 33)
CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 512, "vocab_size": 512, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


_HYBRID: Mapping[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "intermediate_size": 512, "vocab_size": 512, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attention_bias": False,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 64,
    "linear_value_head_dim": 64, "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
    },
}  # fmt: skip
_MIXED: Mapping[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256, "norm_topk_prob": True,
}  # fmt: skip
#: By architecture.
HYBRIDS: Mapping[str, Mapping[str, Any]] = {
    "qwen3next": {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
                  **_HYBRID, **_MIXED},
    "qwen35": {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", **_HYBRID},
    "qwen35moe": {"architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe_text",
                  **_HYBRID, **_MIXED},
}  # fmt: skip
_SECTIONS = [3, 3, 2, 0]  # of the rotated halves; text has one position for all
#: Those of Qwen3.5 in Q4_K have blocks that hold columns of two heads.
HYBRID_KINDS = tuple((name, kind) for name in HYBRIDS for kind in ("F32", "F16", "Q4_K"))


def write_hybrid_case(
    path: Path,
    name: str,
    kind: str,
    *,
    encode: Encode | None = None,
    changed: Mapping[str, Any] | None = None,
) -> Path:
    """The file of a hybrid: all matrices of products are stored in a type. ``changed`` fields take
    the place of those of the same names."""
    config = HYBRIDS[name]
    spec = spec_from_config(config)
    tensors = laid_out(spec, random_tensors(spec, 22))
    fields: dict[str, Any] = {"tokenizer.ggml.model": "no_vocab"}
    if name != "qwen3next":
        fields[f"{name}.rope.dimension_sections"] = _SECTIONS
    return write_gguf(
        path, config, tensors, encode=encode or partial(_encode, kind),
        fields={**fields, **(changed or {})},
    )  # fmt: skip


def write_case(path: Path, kind: str) -> Path:
    """The file of a type: all matrices are stored in it."""
    spec = spec_from_config(CONFIG)
    tensors = laid_out(spec, random_tensors(spec, 21))
    fields = {"tokenizer.ggml.model": "no_vocab"}
    return write_gguf(path, CONFIG, tensors, encode=partial(_encode, kind), fields=fields)


def _encode(kind: str, name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType | None]:
    if kind == "F32" or "norm" in name or "conv1d" in name or values.ndim < 2:
        return values, None
    return encoded_as(kind, name, values)
