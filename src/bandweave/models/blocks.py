"""The blocks that model families are made of. Knows graphs only."""

from __future__ import annotations

from bandweave.models.cut import columns, heads, kv_heads
from bandweave.models.graph import Graph, Value
from bandweave.models.spec import HeadsSpec, LayerSpec, MlpSpec, ModelSpec


def attend(g: Graph, y: Value, attention: HeadsSpec) -> Value:
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), with rope where there is
    one; the heads' outputs, side by side."""
    dim = attention.head_dim
    kv = kv_heads(attention.num_kv_heads, dim, attention.heads_per_kv_head)
    q, k, v = g.linear(
        y,
        (("q_proj", heads(attention.num_heads, dim)), ("k_proj", kv), ("v_proj", kv)),
        bias=attention.qkv_bias,
    )
    if attention.qk_norm == "head":
        q = g.head_norm(q, "q_norm", dim)
        k = g.head_norm(k, "k_norm", dim)
    if attention.qk_norm == "all":
        q, k = g.norm_of_all(q, k, "q_norm", "k_norm")
    if attention.rope is not None:
        q = g.rope(q, attention.rope)
        k = g.rope(k, attention.rope)
    return g.attention(
        q,
        k,
        v,
        head_dim=dim,
        window=attention.window,
        scale=attention.scale,
        cap=attention.score_cap,
        sinks=attention.sinks,
    )


def gate(g: Graph, y: Value, mlp: MlpSpec) -> Value:
    """The gated columns of an MLP (Shazeer 2020, arXiv:2002.05202)."""
    width = columns(mlp.intermediate_size)
    gates, up = g.linear(y, (("gate_proj", width), ("up_proj", width)), bias=mlp.bias)
    return g.gated_mul(gates, up, mlp.function)


def join(g: Graph, x: Value, layer: LayerSpec, inputs: Value, weight: str, *, bias: bool) -> Value:
    """Adds what a block's last product gives to the residual, in the layer's form."""
    normed = layer.form in ("post", "both")
    if not normed and layer.residual_factor == 1:
        return g.linear_add(x, inputs, weight, bias=bias)
    total = g.linear_sum(inputs, weight, bias=bias)
    if normed:
        name = "attention_out_norm" if weight == "o_proj" else "mlp_out_norm"
        total = g.norm(total, name, out="normed")
    return g.add(x, total, f"{weight}.add", factor=layer.residual_factor)


def layer_block(g: Graph, x: Value, layer: LayerSpec) -> Value:
    """Attention with heads and a gated MLP, in the layer's form."""
    attention, mlp = layer.attention, layer.mlp
    assert isinstance(attention, HeadsSpec) and isinstance(mlp, MlpSpec)
    y = x if layer.form == "post" else g.norm(x, "input_norm")
    attended = attend(g, y, attention)
    x = join(g, x, layer, attended, "o_proj", bias=attention.output_bias)
    if layer.form == "post":
        y = x
    elif layer.form != "parallel":
        y = g.norm(x, "post_norm")
    return join(g, x, layer, gate(g, y, mlp), "down_proj", bias=mlp.bias)


def decoder(spec: ModelSpec) -> Graph:
    """A stack of layers between an embedding and a vocabulary."""
    g = Graph(spec)
    x = g.embed()
    for index, layer in enumerate(spec.layers):
        with g.layer(index):
            x = layer_block(g, x, layer)
    g.logits(g.norm(x, "norm"))
    return g
