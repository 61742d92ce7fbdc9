"""Names of the blocks' tensors in a Hugging Face folder; ``{}`` stands for the number of the layer.

Families take them over, and add or change what is their own.
"""

from __future__ import annotations

from collections.abc import Mapping

DECODER: Mapping[str, str] = {
    "embed_tokens": "model.embed_tokens.weight",
    "lm_head": "lm_head.weight",
    "norm": "model.norm.weight",
    "layers.{}.input_norm": "model.layers.{}.input_layernorm.weight",
    "layers.{}.post_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.q_proj": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.q_proj.bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers.{}.k_proj": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.k_proj.bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers.{}.v_proj": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.v_proj.bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers.{}.o_proj": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.o_proj.bias": "model.layers.{}.self_attn.o_proj.bias",
    "layers.{}.gate_proj": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.gate_proj.bias": "model.layers.{}.mlp.gate_proj.bias",
    "layers.{}.up_proj": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.up_proj.bias": "model.layers.{}.mlp.up_proj.bias",
    "layers.{}.down_proj": "model.layers.{}.mlp.down_proj.weight",
    "layers.{}.down_proj.bias": "model.layers.{}.mlp.down_proj.bias",
}


def named(names: Mapping[str, str], name: str) -> str | None:
    """The name that a family's table gives the tensor that bandweave calls ``name``, or None."""
    layer, pattern = "", name
    first, *rest = name.split(".")
    if first == "layers" and len(rest) >= 2 and rest[0].isdecimal():
        layer, pattern = rest[0], ".".join(["layers", "{}", *rest[1:]])
    found = names.get(pattern)
    return None if found is None else found.replace("{}", layer)
