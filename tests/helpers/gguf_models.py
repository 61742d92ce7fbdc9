"""Small models as GGUF files, made of a config.json and the tensors of a folder.

A converter of its own, after llama.cpp's: names are those of the ``gguf`` package's table, so that
nothing here is taken from what is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tests.helpers.gguf_hybrids import delta_products, hybrid_tensor, write_hybrid
from tests.helpers.stored_formats import F32

Array = npt.NDArray[Any]
#: What is written of a tensor: its bytes or values, and the type if it is not that of the values.
Encode = Callable[[str, F32], tuple[Array, gguf.GGMLQuantizationType | None]]

ARCHITECTURES: Mapping[str, gguf.MODEL_ARCH] = {
    "llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA, "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3, "phi3": gguf.MODEL_ARCH.PHI3,
    "deepseek_v2": gguf.MODEL_ARCH.DEEPSEEK2, "deepseek_v3": gguf.MODEL_ARCH.DEEPSEEK2,
    "glm4_moe": gguf.MODEL_ARCH.GLM4_MOE, "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "qwen3_next": gguf.MODEL_ARCH.QWEN3NEXT, "qwen3_5_text": gguf.MODEL_ARCH.QWEN35,
    "qwen3_5_moe_text": gguf.MODEL_ARCH.QWEN35MOE,
}  # fmt: skip
_HYBRIDS = (gguf.MODEL_ARCH.QWEN3NEXT, gguf.MODEL_ARCH.QWEN35, gguf.MODEL_ARCH.QWEN35MOE)
_EXPERT = re.compile(r"(model\.layers\.\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.")
_EXPERTS = {"w1": "gate", "w3": "up", "w2": "down",
            "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}  # fmt: skip


def plain(name: str, values: F32) -> tuple[Array, None]:
    """Values as they are."""
    return values, None


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    values: Mapping[str, F32],
    *,
    encode: Encode = plain,
    old: bool = False,
    rotated: bool = True,
    fields: Mapping[str, Any] | None = None,
    more: Mapping[str, F32] | None = None,
) -> Path:
    """``old``: as files of 2024 have them, each expert on its own, and keys and values of a latent
    in one, or as Qwen3-Next's first ones, with four products in one. ``rotated``: it says how many
    elements of a head are. ``fields`` by whole names and
    ``more`` tensors are written besides."""
    arch = ARCHITECTURES[config["model_type"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _write_sizes(writer, config, old)
    _write_rope(writer, config, rotated)
    _write_mixture(writer, config)
    if arch in _HYBRIDS:
        write_hybrid(writer, config, old)
    for key, value in (fields or {}).items():
        write_field(writer, key, value)
    for name, tensor in {**converted(arch, config, values, old=old), **(more or {})}.items():
        data, kind = encode(name, np.ascontiguousarray(tensor))
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def converted(
    arch: gguf.MODEL_ARCH, config: Mapping[str, Any], values: Mapping[str, F32], *, old: bool
) -> dict[str, F32]:
    """All tensors by their names in the file."""
    layers = config["num_hidden_layers"] + (config.get("num_nextn_predict_layers") or 0)
    table = gguf.get_tensor_name_map(arch, layers)
    result: dict[str, F32] = {}
    stacks: dict[str, list[F32]] = {}
    for name, value in values.items():
        name = _numbered(name, config["num_hidden_layers"])
        layer = name.split(".")[2] if name.startswith("model.layers.") else ""
        expert = _EXPERT.match(name)
        if expert is not None:
            part = f"blk.{layer}.ffn_{_EXPERTS[expert[3]]}"
            if old and arch not in _HYBRIDS:
                result[f"{part}.{expert[2]}.weight"] = value
            else:
                stacks.setdefault(f"{part}_exps.weight", []).append(value)
        elif ".mlp.experts." in name:
            result |= _stacked(name, f"blk.{layer}", value)
        elif name.endswith(".kv_b_proj.weight") and not old:
            result |= _parted(config, f"blk.{layer}", value)
        elif name.endswith(".in_proj_qkvz.weight"):
            result |= delta_products(config, f"blk.{layer}", value, old=old)
        else:
            if name.endswith("e_score_correction_bias"):
                name = name.replace("_bias", ".bias")
            known = name.replace(".dt_bias", ".dt_proj.bias")
            found = table.get_name(known, try_suffixes=(".weight", ".bias"))
            if found is None and arch in _HYBRIDS:  # the package does not know their joint yet
                part = name.replace(f"model.layers.{layer}.", "").replace(
                    "shared_head.", "shared_head_"
                )
                found = f"blk.{layer}.nextn.{part}" if part.split(".")[0] in _NEXTN else None
            assert found is not None, name
            result[found + ".weight" * found.endswith("_sinks")] = _turned(
                arch, config, name, value
            )
    return {**result, **{name: np.stack(entries) for name, entries in stacks.items()}}


_JOINT = {"mtp.fc": "eh_proj", "mtp.pre_fc_norm_embedding": "enorm",
          "mtp.pre_fc_norm_hidden": "hnorm", "mtp.norm": "shared_head.norm"}  # fmt: skip


_NEXTN = ("eh_proj", "enorm", "hnorm", "shared_head_norm")


def _numbered(name: str, layers: int) -> str:
    """Qwen's names of its further layer as DeepSeek's, which count it behind the others."""
    for stored, part in _JOINT.items():
        if name == f"{stored}.weight":
            return f"model.layers.{layers}.{part}.weight"
    return name.replace("mtp.layers.0.", f"model.layers.{layers}.", 1)


def _turned(arch: gguf.MODEL_ARCH, config: Mapping[str, Any], name: str, value: F32) -> F32:
    """What the converter changes of single tensors."""
    if arch == gguf.MODEL_ARCH.LLAMA and re.search(r"\.(q|k)_proj\.", name):
        head = _head_dim(config)
        halves = value.reshape(-1, 2, head // 2, *value.shape[1:])
        return halves.swapaxes(1, 2).reshape(value.shape)
    if arch == gguf.MODEL_ARCH.GEMMA3 and name.endswith("norm.weight"):
        return value + np.float32(1)
    return hybrid_tensor(arch, config, name, value) if arch in _HYBRIDS else value


def _stacked(name: str, block: str, value: F32) -> dict[str, F32]:
    """gpt-oss: columns of gates and of what they gate take turns, inputs first."""
    kind = "bias" if name.endswith("_bias") else "weight"
    value = value if kind == "bias" else value.swapaxes(1, 2)
    if "down_proj" in name:
        return {f"{block}.ffn_down_exps.{kind}": value}
    gate, up = value[:, ::2], value[:, 1::2]
    return {f"{block}.ffn_gate_exps.{kind}": gate, f"{block}.ffn_up_exps.{kind}": up}


def _parted(config: Mapping[str, Any], block: str, value: F32) -> dict[str, F32]:
    """Keys' and values' rows of each head on their own, keys' turned round."""
    heads = value.reshape(config["num_attention_heads"], -1, config["kv_lora_rank"])
    keys = config["qk_nope_head_dim"]
    return {
        f"{block}.attn_k_b.weight": heads[:, :keys].swapaxes(1, 2),
        f"{block}.attn_v_b.weight": heads[:, keys:],
    }


# --- fields ---


def _head_dim(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def write_field(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """A field of the type that its value has; numbers as 32 bits."""
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_uint32(key, value)


def _write_sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any], old: bool) -> None:
    further = config.get("num_nextn_predict_layers") or 0
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"] + further)
    writer.add_feed_forward_length(config.get("intermediate_size", 0))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if further:
        writer.add_nextn_predict_layers(further)
    if "kv_lora_rank" in config:
        _write_latent(writer, config, old)
        return
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    kinds = config.get("layer_types")
    if kinds and "sliding_attention" in kinds and config["model_type"] != "gpt_oss":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])


def _write_latent(writer: gguf.GGUFWriter, config: Mapping[str, Any], old: bool) -> None:
    rank, rotated = config["kv_lora_rank"], config["qk_rope_head_dim"]
    keys = config["qk_nope_head_dim"] + rotated
    writer.add_kv_lora_rank(rank)
    if config["q_lora_rank"]:
        writer.add_q_lora_rank(config["q_lora_rank"])
    if old:
        writer.add_head_count_kv(config["num_attention_heads"])
        writer.add_key_length(keys)
        writer.add_value_length(config["v_head_dim"])
        return
    writer.add_head_count_kv(1)
    writer.add_key_length(rank + rotated)
    writer.add_value_length(rank)
    writer.add_key_length_mla(keys)
    writer.add_value_length_mla(config["v_head_dim"])


def _write_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any], rotated: bool) -> None:
    given = config.get("rope_parameters") or {}
    if "full_attention" in given:
        writer.add_rope_freq_base_swa(given["sliding_attention"]["rope_theta"])
        given = given["full_attention"]
    writer.add_rope_freq_base(given.get("rope_theta", 10000.0))
    part = given.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if rotated:
        whole = config.get("qk_rope_head_dim") or int(_head_dim(config) * part)
        writer.add_rope_dimension_count(whole)
    kind = given.get("rope_type")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(given["factor"])
    if kind in ("longrope", "yarn"):
        writer.add_rope_scaling_orig_ctx_len(given["original_max_position_embeddings"])
    if kind == "yarn":
        writer.add_rope_scaling_yarn_beta_fast(given["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(given["beta_slow"])
        if "mscale_all_dim" in given:
            writer.add_rope_scaling_yarn_log_mul(0.1 * given["mscale_all_dim"])
    if kind == "longrope":
        for name in ("long", "short"):
            factors = np.array(given[f"{name}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors)


def _write_mixture(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((config[name] for name in names if name in config), 0)
    if not experts:
        return
    writer.add_expert_count(experts)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    writer.add_expert_feed_forward_length(width)
    if "n_routed_experts" not in config:
        return
    softmax = config["model_type"] == "deepseek_v2"
    kinds = gguf.ExpertGatingFuncType
    writer.add_expert_gating_func(kinds.SOFTMAX if softmax else kinds.SIGMOID)
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(not softmax and config["norm_topk_prob"])
    if config.get("n_group"):
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
