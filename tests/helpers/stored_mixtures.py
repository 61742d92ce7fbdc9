"""Tiny mixtures of experts as their makers store them: the products of experts, or all products,
in a quantised format, everything else as bf16; beside them the same values as float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bandweave.models.registry import spec_from_config
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import random_tensors
from tests.helpers.stored_formats import F32, Encoded, Tensor, bf16
from tests.helpers.stored_models import write_model

#: A matrix, or a stack of them, in a format: of random numbers, its stored name and its shape.
Encode = Callable[[np.random.Generator, str, tuple[int, ...]], Encoded]

GPT_OSS: Mapping[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 96, "vocab_size": 640, "max_position_embeddings": 512,
    "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 40, "eos_token_id": 2,
    "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                     "original_max_position_embeddings": 64, "truncate": False},
}  # fmt: skip

DEEPSEEK: Mapping[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 160,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 132, "vocab_size": 640, "max_position_embeddings": 512,
    "q_lora_rank": 96, "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32,
    "v_head_dim": 32, "moe_intermediate_size": 136, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
    "eos_token_id": 2, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
}  # fmt: skip


def is_expert(name: str) -> bool:
    """Whether a stored tensor holds products of routed experts."""
    return ".mlp.experts." in name


def is_product(name: str) -> bool:
    """Whether it holds products that DeepSeek's releases store in FP8: all but routers."""
    return (".self_attn." in name or ".mlp." in name) and ".mlp.gate." not in name


def stored_mixture(
    config: Mapping[str, Any], encode: Encode, chosen: Callable[[str], bool], *, by_rows: bool
) -> tuple[dict[str, Tensor], dict[str, F32]]:
    """The stored tensors, and the values of all by the names of plain ones. ``by_rows``: stacks are
    rows of outputs, not of inputs, where both occur."""
    spec = spec_from_config(config)
    values = laid_out(spec, random_tensors(spec, 5), lambda at: not (by_rows and at.transposed))
    rng, tensors = np.random.default_rng(3), {}
    for name, value in values.items():
        if len(value.shape) > 1 and not name.endswith("bias") and chosen(name):
            one = encode(rng, name, value.shape)
            values[name] = one.values
            tensors.update(one.tensors)
        else:
            values[name] = (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            tensors[name] = "BF16", bf16(values[name])
    return tensors, values


def write_both(
    where: Path,
    config: Mapping[str, Any],
    quantization: Mapping[str, Any],
    stored: tuple[Mapping[str, Tensor], Mapping[str, F32]],
) -> tuple[Path, Path]:
    """Two folders: the stored model, and its values as float32."""
    tensors, values = stored
    fields = {**config, "quantization_config": quantization}
    path = write_model(where / "stored", fields, tensors)
    plain = write_model(where / "plain", config, {n: ("F32", v) for n, v in values.items()})
    return path, plain
