"""Names of tensors: from bandweave's to those of a Hugging Face folder, per family, as data.

Knows names only; knows no files and no shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

_DECODER: dict[str, str] = {
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

HUGGING_FACE_NAMES: Mapping[str, Mapping[str, str]] = {
    "llama": _DECODER,
    "qwen3": {
        **_DECODER,
        "layers.{}.q_norm": "model.layers.{}.self_attn.q_norm.weight",
        "layers.{}.k_norm": "model.layers.{}.self_attn.k_norm.weight",
    },
}
"""By family, then by bandweave's name; ``{}`` stands for the number of the layer."""


def hugging_face_name(family: str, name: str) -> str:
    """The name in a Hugging Face folder of the tensor that bandweave calls ``name``.

    ``ValueError`` where the family or the name is not in the table.
    """
    layer, pattern = "", name
    first, *rest = name.split(".")
    if first == "layers" and len(rest) >= 2 and rest[0].isdecimal():
        layer, pattern = rest[0], ".".join(["layers", "{}", *rest[1:]])
    try:
        return HUGGING_FACE_NAMES[family][pattern].replace("{}", layer)
    except KeyError:
        raise ValueError(f"family {family!r} has no Hugging Face name for {name!r}") from None
