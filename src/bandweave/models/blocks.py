"""The blocks that model families are made of. Knows graphs only."""

from __future__ import annotations

from bandweave.models.cut import columns, heads, kv_heads
from bandweave.models.graph import Graph, Value
from bandweave.models.spec import HeadsSpec, MlpSpec, ModelSpec


def attention_block(g: Graph, x: Value, attention: HeadsSpec) -> Value:
    """Pre-norm grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rope."""
    dim = attention.head_dim
    kv = kv_heads(attention.num_kv_heads, dim, attention.heads_per_kv_head)
    y = g.rms_norm(x, "input_norm")
    q, k, v = g.linear(
        y,
        (
            ("q_proj", heads(attention.num_heads, dim)),
            ("k_proj", kv),
            ("v_proj", kv),
        ),
        bias=attention.qkv_bias,
    )
    if attention.qk_norm == "head":
        q = g.head_norm(q, "q_norm", dim)
        k = g.head_norm(k, "k_norm", dim)
    assert attention.rope is not None, "every family that is run turns its heads"
    q = g.rope(q, attention.rope)
    k = g.rope(k, attention.rope)
    attended = g.attention(q, k, v, head_dim=dim, window=attention.window)
    return g.linear_add(x, attended, "o_proj", bias=attention.output_bias)


def gated_mlp_block(g: Graph, x: Value, mlp: MlpSpec) -> Value:
    """Pre-norm gated MLP with SiLU (Shazeer 2020, arXiv:2002.05202)."""
    y = g.rms_norm(x, "post_norm")
    gate, up = g.linear(
        y,
        (
            ("gate_proj", columns(mlp.intermediate_size)),
            ("up_proj", columns(mlp.intermediate_size)),
        ),
        bias=mlp.bias,
    )
    return g.linear_add(x, g.gated_mul(gate, up), "down_proj", bias=mlp.bias)


def decoder(spec: ModelSpec) -> Graph:
    """A stack of attention and gated-MLP blocks between an embedding and a vocabulary."""
    g = Graph(spec)
    x = g.embed()
    for index, layer in enumerate(spec.layers):
        assert isinstance(layer.attention, HeadsSpec) and isinstance(layer.mlp, MlpSpec)
        with g.layer(index):
            x = attention_block(g, x, layer.attention)
            x = gated_mlp_block(g, x, layer.mlp)
    g.logits(g.rms_norm(x, "norm"))
    return g
