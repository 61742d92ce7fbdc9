"""Qwen's hybrids: Qwen3-Next, Qwen3.5 and 3.6, dense and mixtures.

Source: llama.cpp's src/models/qwen3next.cpp and qwen35.cpp, and its conversion/qwen.py. Gated delta
nets are called state space models there. Of value heads that share a key head Qwen3.5's files have
the first ones of all key heads first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bandweave.models.attention_spec import HeadsSpec, LinearSpec
from bandweave.models.config import ConfigError
from bandweave.models.config_hybrid import LINEAR
from bandweave.models.config_window import FULL
from bandweave.models.gguf import names
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.gguf.sizes import mixture, rope_dim, sizes
from bandweave.models.spec import LayerSpec
from bandweave.models.tensor_names import Names, Slice, either, fused

_INTERVAL = 4  # layers, of which one has a cache
_PARTS = ("q", "k", "v")


def _query_heads(layer: LayerSpec) -> int:
    assert isinstance(layer.attention, HeadsSpec)
    return layer.attention.num_heads


def _key_heads(layer: LayerSpec) -> int:
    assert isinstance(layer.attention, LinearSpec)
    return layer.attention.key_heads


def _sharing(layer: LayerSpec) -> tuple[int, int]:
    assert isinstance(layer.attention, LinearSpec)
    return layer.attention.key_heads, layer.attention.sharing


_HEADS: Names = {
    **names.COMMON,
    **names.QK_NORMS,
    **names.POST_NORM,
    **fused(
        "blk.{}.attn_q.weight", "layers.{}.q_proj", "layers.{}.q_gate_proj", groups=_query_heads
    ),
    **fused(
        "blk.{}.attn_q.bias",
        "layers.{}.q_proj.bias",
        "layers.{}.q_gate_proj.bias",
        groups=_query_heads,
    ),
}

_QKV = fused("blk.{}.attn_qkv.weight", *(f"layers.{{}}.delta_{part}_proj" for part in _PARTS))
_CONV = fused("blk.{}.ssm_conv1d.weight", *(f"layers.{{}}.delta_{part}_conv" for part in _PARTS))
_DELTA: Names = {
    **_CONV,
    "layers.{}.delta_rate": Slice(tensor="blk.{}.ssm_a", log=True),
    "layers.{}.delta_step": "blk.{}.ssm_dt.bias",
    "layers.{}.delta_norm": "blk.{}.ssm_norm.weight",
    "layers.{}.delta_o_proj": "blk.{}.ssm_out.weight",
}

#: Heads as in Hugging Face's folders; files of the first weeks have all four products in one.
QWEN3_NEXT_NAMES: Names = {
    **_HEADS,
    **names.MIXTURE,
    **names.FURTHER,
    **_DELTA,
    **either(
        {**_QKV, "layers.{}.delta_z_proj": "blk.{}.attn_gate.weight"},
        fused(
            "blk.{}.ssm_in.weight",
            *(f"layers.{{}}.delta_{part}_proj" for part in (*_PARTS, "z")),
            groups=_key_heads,
        ),
    ),
    **fused(
        "blk.{}.ssm_ba.weight",
        *(f"layers.{{}}.delta_{part}_proj" for part in ("write", "decay")),
        groups=_key_heads,
    ),
}

QWEN3_5_NAMES: Names = {
    **_HEADS,
    **names.MIXTURE,
    **names.FURTHER,
    **_DELTA,
    **_QKV,
    "layers.{}.delta_v_proj": replace(_QKV["layers.{}.delta_v_proj"], tiles=_sharing),
    "layers.{}.delta_v_conv": replace(_CONV["layers.{}.delta_v_conv"], tiles=_sharing),
    "layers.{}.delta_z_proj": Slice(tensor="blk.{}.attn_gate.weight", tiles=_sharing),
    "layers.{}.delta_write_proj": Slice(tensor="blk.{}.ssm_beta.weight", tiles=_sharing),
    "layers.{}.delta_decay_proj": Slice(tensor="blk.{}.ssm_alpha.weight", tiles=_sharing),
    "layers.{}.delta_rate": Slice(tensor="blk.{}.ssm_a", tiles=_sharing, log=True),
    "layers.{}.delta_step": Slice(tensor="blk.{}.ssm_dt.bias", tiles=_sharing),
    "layers.{}.delta_o_proj": Slice(
        tensor="blk.{}.ssm_out.weight", tiles=_sharing, tiled_columns=True
    ),
}


def _hybrid(data: Metadata) -> dict[str, Any]:
    given = sizes(data)
    heads, keys = data.size("ssm.time_step_rank"), data.size("ssm.group_count")
    inner, dim = data.size("ssm.inner_size"), data.size("ssm.state_size")
    if not heads or not keys or inner % heads:
        raise ConfigError(
            f"{inner} values (ssm.inner_size) of {heads} heads (ssm.time_step_rank) and {keys} key "
            "heads (ssm.group_count) cannot be"
        )
    return {
        **given,
        "partial_rotary_factor": rope_dim(data, given["head_dim"] // 4) / given["head_dim"],
        "attention_bias": _has_bias(data),
        "linear_num_key_heads": keys,
        "linear_num_value_heads": heads,
        "linear_key_head_dim": dim,
        "linear_value_head_dim": inner // heads,
        "linear_conv_kernel_dim": data.size("ssm.conv_kernel"),
        "layer_types": _kinds(data, given["num_hidden_layers"]),
        "num_nextn_predict_layers": data.size("nextn_predict_layers", 0),
        "mtp_num_hidden_layers": data.size("nextn_predict_layers", 0),
    }


def _has_bias(data: Metadata) -> bool:
    return any(name.endswith(".attn_q.bias") for name in data.shapes)


def _kinds(data: Metadata, layers: int) -> list[str]:
    """Which layers have a state: as the file lists them, else all but one in some."""
    listed = data.flags("attention.recurrent_layers")
    if listed is None:
        interval = data.size("full_attention_interval", _INTERVAL) or _INTERVAL
        return [LINEAR if (layer + 1) % interval else FULL for layer in range(layers)]
    if len(listed) < layers:
        raise ConfigError(
            f"attention.recurrent_layers has {len(listed)} entries for {layers} layers"
        )
    return [LINEAR if one else FULL for one in listed[:layers]]


def qwen3_next(data: Metadata) -> dict[str, Any]:
    """The fields of a config.json of Qwen3-Next."""
    normed = data.flag("expert_weights_norm", True)
    return {**_hybrid(data), **_mixture(data), "norm_topk_prob": normed, "decoder_sparse_step": 1}


def qwen3_5(data: Metadata) -> dict[str, Any]:
    """Those of Qwen3.5, dense."""
    return _hybrid(data)


def qwen3_5_moe(data: Metadata) -> dict[str, Any]:
    """Those of a mixture of Qwen3.5's."""
    return {**_hybrid(data), **_mixture(data)}


def _mixture(data: Metadata) -> dict[str, Any]:
    stored = data.shapes.get("blk.0.ffn_up_shexp.weight", (0,))
    shared = data.size("expert_shared_feed_forward_length", stored[0])
    return {**mixture(data), "shared_expert_intermediate_size": shared}
