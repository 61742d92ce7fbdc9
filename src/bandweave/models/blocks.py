"""The blocks that model families are made of. Knows graphs only."""

from __future__ import annotations

from bandweave.models.graph import Axis, Graph, Value
from bandweave.models.spec import ModelSpec


def attention_block(g: Graph, x: Value, spec: ModelSpec) -> Value:
    """Pre-norm grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rope."""
    q_width = spec.num_heads * spec.head_dim
    kv_width = spec.num_kv_heads * spec.head_dim
    y = g.rms_norm(x, "input_norm")
    q, k, v = g.linear(
        y,
        (
            ("q_proj", q_width, Axis.HEADS),
            ("k_proj", kv_width, Axis.KV_HEADS),
            ("v_proj", kv_width, Axis.KV_HEADS),
        ),
        bias=spec.qkv_bias,
    )
    if spec.qk_norm:
        q = g.head_norm(q, "q_norm")
        k = g.head_norm(k, "k_norm")
    q = g.rope(q)
    k = g.rope(k)
    attended = g.attention(q, k, v)
    return g.linear_add(x, attended, "o_proj", bias=spec.output_bias)


def gated_mlp_block(g: Graph, x: Value, spec: ModelSpec) -> Value:
    """Pre-norm gated MLP with SiLU (Shazeer 2020, arXiv:2002.05202)."""
    y = g.rms_norm(x, "post_norm")
    gate, up = g.linear(
        y,
        (
            ("gate_proj", spec.intermediate_size, Axis.COLUMNS),
            ("up_proj", spec.intermediate_size, Axis.COLUMNS),
        ),
        bias=spec.mlp_bias,
    )
    return g.linear_add(x, g.silu_mul(gate, up), "down_proj", bias=spec.mlp_bias)


def decoder(spec: ModelSpec) -> Graph:
    """A stack of attention and gated-MLP blocks between an embedding and a vocabulary."""
    g = Graph(spec)
    x = g.embed()
    for layer in range(spec.num_layers):
        with g.layer(layer):
            x = attention_block(g, x, spec)
            x = gated_mlp_block(g, x, spec)
    g.logits(g.rms_norm(x, "norm"))
    return g
