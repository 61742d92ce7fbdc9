"""What llama.cpp's converter makes of hybrids: gated delta nets beside heads with gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from tests.helpers.stored_formats import F32

Config = Mapping[str, Any]


def hybrid_tensor(arch: gguf.MODEL_ARCH, config: Config, name: str, value: F32) -> F32:
    """A tensor by its Hugging Face name as the file has it."""
    if name.endswith(".conv1d.weight"):
        value = value[:, 0]
    if arch != gguf.MODEL_ARCH.QWEN3NEXT and ".linear_attn." in name:
        value = _tiled(config, name, value)
    if name.endswith(".A_log"):
        return -np.exp(value.astype(np.float64)).astype(np.float32)
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return value + np.float32(1)
    return value


def _tiled(config: Config, name: str, value: F32) -> F32:
    """Value heads in Qwen3.5's order: the first ones of all key heads first."""
    dim = config["linear_value_head_dim"]
    others = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]
    if ".in_proj_qkv." in name or ".conv1d." in name:
        return np.concatenate([value[:others], _turned(config, value[others:], dim)])
    if ".out_proj." in name:
        return _turned(config, value.T, dim).T
    if ".in_proj_z." in name:
        return _turned(config, value, dim)
    return value if name.endswith("linear_attn.norm.weight") else _turned(config, value, 1)


def _turned(config: Config, value: F32, size: int) -> F32:
    heads, keys = config["linear_num_value_heads"], config["linear_num_key_heads"]
    grouped = value.reshape(keys, heads // keys, size, *value.shape[1:])
    return grouped.swapaxes(0, 1).reshape(value.shape)


def delta_products(config: Config, block: str, value: F32, *, old: bool) -> dict[str, F32]:
    """Qwen3-Next's four products of a delta net, which its folder has key head by key head."""
    if old:
        return {f"{block}.ssm_in.weight": value}
    keys, dim = config["linear_num_key_heads"], config["linear_key_head_dim"]
    width = config["linear_num_value_heads"] // keys * config["linear_value_head_dim"]
    by_head = value.reshape(keys, 2 * dim + 2 * width, -1)
    q, k, v, z = np.split(by_head, (dim, 2 * dim, 2 * dim + width), axis=1)
    parts = [part.reshape(-1, value.shape[1]) for part in (q, k, v)]
    return {
        f"{block}.attn_qkv.weight": np.concatenate(parts),
        f"{block}.attn_gate.weight": z.reshape(-1, value.shape[1]),
    }


def write_hybrid(writer: gguf.GGUFWriter, config: Config, old: bool) -> None:
    """``old``: without a list of which layers have a state, where an interval says it."""
    heads = config["linear_num_value_heads"]
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_inner_size(config["linear_value_head_dim"] * heads)
    kinds = config["layer_types"]
    writer.add_full_attention_interval(kinds.index("full_attention") + 1)
    if not old:
        key = f"{writer.arch}.attention.recurrent_layers"
        writer.add_array(key, [kind == "linear_attention" for kind in kinds])
    if config.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
