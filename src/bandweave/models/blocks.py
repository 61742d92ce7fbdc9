"""The blocks that model families are made of. Knows graphs only."""

from __future__ import annotations

from bandweave.models.cut import columns, heads, kv_heads
from bandweave.models.graph import Graph, Value
from bandweave.models.spec import (
    HeadsSpec,
    LatentSpec,
    LinearSpec,
    MixtureSpec,
    MlpSpec,
    ModelSpec,
)


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
    q = g.rope(q, attention.rope, dim=dim)
    k = g.rope(k, attention.rope, dim=dim)
    attended = g.attention(q, k, v, head_dim=dim, window=attention.window)
    return g.linear_add(x, attended, "o_proj", bias=attention.output_bias)


def latent_attention_block(g: Graph, x: Value, attention: LatentSpec) -> Value:
    """Pre-norm multi-head latent attention (DeepSeek-V2, arXiv:2405.04434)."""
    queries = heads(attention.num_heads, attention.query_dim)
    width = attention.kv_rank + attention.rope_dim
    y = g.rms_norm(x, "input_norm")
    if attention.q_rank is None:
        q, kv = g.linear(y, (("q_proj", queries), ("kv_a_proj", width)))
    else:
        latent, kv = g.linear(y, (("q_a_proj", attention.q_rank), ("kv_a_proj", width)))
        latent = g.part_norm(latent, "q_a_norm", attention.q_rank, attention.norm_eps)
        (q,) = g.linear(latent, (("q_b_proj", queries),))
    kv = g.part_norm(kv, "kv_a_norm", attention.kv_rank, attention.norm_eps)
    assert attention.rope is not None, "every family that is run turns its keys"
    kv = g.rope(kv, attention.rope, dim=width, offset=attention.kv_rank)
    return g.linear_add(x, g.latent_attention(q, kv, attention), "o_proj")


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
    return g.linear_add(x, g.gated_mul(gate, up, mlp.gate), "down_proj", bias=mlp.bias)


def mixture_block(g: Graph, x: Value, mixture: MixtureSpec) -> Value:
    """Pre-norm mixture of gated MLPs (Shazeer et al. 2017, arXiv:1701.06538)."""
    y = g.rms_norm(x, "post_norm")
    routes = g.route(y, mixture)
    made = g.expert_linear(y, routes, mixture)
    return g.expert_add(x, made, routes, mixture)


def decoder(spec: ModelSpec) -> Graph:
    """A stack of attention and MLP blocks between an embedding and a vocabulary."""
    g = Graph(spec)
    x = g.embed()
    for index, layer in enumerate(spec.layers):
        assert not isinstance(layer.attention, LinearSpec)
        with g.layer(index):
            if isinstance(layer.attention, LatentSpec):
                x = latent_attention_block(g, x, layer.attention)
            else:
                x = attention_block(g, x, layer.attention)
            if isinstance(layer.mlp, MixtureSpec):
                x = mixture_block(g, x, layer.mlp)
            else:
                x = gated_mlp_block(g, x, layer.mlp)
    g.logits(g.rms_norm(x, "norm"))
    return g
