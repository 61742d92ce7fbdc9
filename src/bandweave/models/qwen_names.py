"""Names of tensors that several of Qwen's families share: experts with a gated shared one, heads
with gates, gated delta nets, and the layer that predicts further tokens."""

from __future__ import annotations

from bandweave.models.attention_spec import HeadsSpec
from bandweave.models.spec import LayerSpec
from bandweave.models.tensor_names import (
    DECODER,
    QK_NORMS,
    Names,
    experts,
    further_layer,
    fused,
    shared_expert,
)

#: A mixture of Qwen's with a shared expert that has a gate of its own.
SHARED_EXPERT: Names = {
    **experts(),
    "layers.{}.router": "model.layers.{}.mlp.gate.weight",
    "layers.{}.shared_expert.gate": "model.layers.{}.mlp.shared_expert_gate.weight",
    **shared_expert("model.layers.{}.mlp.shared_expert"),
}


def _query_heads(layer: LayerSpec) -> int:
    assert isinstance(layer.attention, HeadsSpec)
    return layer.attention.num_heads


#: A decoder whose query projection also gives the gates of the heads' outputs, head by head.
GATED_HEADS: Names = {
    **DECODER,
    **QK_NORMS,
    **fused(
        "model.layers.{}.self_attn.q_proj.weight",
        "layers.{}.q_proj",
        "layers.{}.q_gate_proj",
        groups=_query_heads,
    ),
    **fused(
        "model.layers.{}.self_attn.q_proj.bias",
        "layers.{}.q_proj.bias",
        "layers.{}.q_gate_proj.bias",
        groups=_query_heads,
    ),
}

_DELTA = "model.layers.{}.linear_attn"

#: What gated delta nets of all families call alike.
DELTA_NET: Names = {
    **fused(
        f"{_DELTA}.conv1d.weight",
        *(f"layers.{{}}.delta_{part}_conv" for part in ("q", "k", "v")),
        middle=True,
    ),
    "layers.{}.delta_rate": f"{_DELTA}.A_log",
    "layers.{}.delta_step": f"{_DELTA}.dt_bias",
    "layers.{}.delta_norm": f"{_DELTA}.norm.weight",
    "layers.{}.delta_o_proj": f"{_DELTA}.out_proj.weight",
}

#: What joins the state of a position and the token after it, and the norm of what comes of them.
_JOINT: Names = {
    "layers.{}.enorm": "mtp.pre_fc_norm_embedding.weight",
    "layers.{}.hnorm": "mtp.pre_fc_norm_hidden.weight",
    "layers.{}.eh_proj": "mtp.fc.weight",
    "layers.{}.shared_head_norm": "mtp.norm.weight",
}


def with_further(names: Names) -> Names:
    """The table with the layer that predicts further tokens, as Qwen's checkpoints have it."""
    return {**further_layer(names, "mtp.layers.0."), **_JOINT}
