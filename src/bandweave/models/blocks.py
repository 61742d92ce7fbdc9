"""The blocks that model families are made of. Knows graphs only."""

from __future__ import annotations

from bandweave.models.attention_spec import HeadsSpec, LatentSpec, LinearSpec
from bandweave.models.cut import columns, heads, kv_heads
from bandweave.models.graph import HIDDEN, Graph
from bandweave.models.graph_op import Value
from bandweave.models.mlp_spec import GateSpec, MixtureSpec, MlpSpec
from bandweave.models.spec import LayerSpec, ModelSpec

_L2_EPS = 1e-6  # of the norms of a delta net's queries and keys, in no config


def attend(g: Graph, y: Value, attention: HeadsSpec) -> Value:
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), with rope where there is
    one; the heads' outputs, side by side."""
    dim = attention.head_dim
    kv = kv_heads(attention.num_kv_heads, dim, attention.heads_per_kv_head)
    queries = heads(attention.num_heads, dim, g.spec.head_unit(attention))
    gates = (("q_gate_proj", queries),) if attention.output_gate else ()
    q, k, v, *gate_of = g.linear(
        y,
        (("q_proj", queries), ("k_proj", kv), ("v_proj", kv), *gates),
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
    attended = g.attention(
        q,
        k,
        v,
        head_dim=dim,
        window=attention.window,
        scale=attention.scale,
        cap=attention.score_cap,
        sinks=attention.sinks,
    )
    for one in gate_of:
        attended = g.gated_mul(one, attended, GateSpec(function="sigmoid"), out="gated_heads")
    return attended


def attend_latent(g: Graph, y: Value, attention: LatentSpec) -> Value:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434); the heads' outputs."""
    queries = heads(attention.num_heads, attention.query_dim, g.spec.head_unit(attention))
    width = attention.kv_rank + attention.rope_dim
    if attention.q_rank is None:
        q, kv = g.linear(y, (("q_proj", queries), ("kv_a_proj", width)))
    else:
        latent, kv = g.linear(y, (("q_a_proj", attention.q_rank), ("kv_a_proj", width)))
        latent = g.part_norm(latent, "q_a_norm", attention.q_rank, attention.norm_eps)
        (q,) = g.linear(latent, (("q_b_proj", queries),))
    kv = g.part_norm(kv, "kv_a_norm", attention.kv_rank, attention.norm_eps)
    assert attention.rope is not None, "every family that is run turns its keys"
    kv = g.rope(kv, attention.rope, dim=width, offset=attention.kv_rank)
    return g.latent_attention(q, kv, attention)


def attend_linear(g: Graph, y: Value, attention: LinearSpec) -> Value:
    """Gated delta net (Yang et al. 2024, arXiv:2412.06464) as Qwen3-Next has it; the heads'
    outputs."""
    count, sharing = attention.key_heads, attention.sharing
    step = g.spec.head_unit(attention)
    keys, each = heads(count, attention.key_dim, step), heads(count, sharing, step)
    values = heads(count, sharing * attention.value_dim, step)
    q, k, v, z, write, decay = g.linear(
        y,
        (
            ("delta_q_proj", keys), ("delta_k_proj", keys), ("delta_v_proj", values),
            ("delta_z_proj", values), ("delta_write_proj", each), ("delta_decay_proj", each),
        ),
        label="delta_in_proj",
    )  # fmt: skip
    q, k, v = g.short_conv((q, k, v), attention.conv_kernel)
    q = g.l2_norm(q, attention.key_dim, _L2_EPS, factor=attention.key_dim**-0.5)
    k = g.l2_norm(k, attention.key_dim, _L2_EPS)
    out = g.delta_rule(q, k, v, g.delta_gates(write, decay), attention)
    out = g.head_norm(out, "delta_norm", attention.value_dim, offset=0.0)
    return g.gated_mul(z, out, GateSpec(function="silu"), out="delta_gated")


def gate(g: Graph, y: Value, mlp: MlpSpec) -> Value:
    """The gated columns of an MLP (Shazeer 2020, arXiv:2002.05202)."""
    width = columns(mlp.intermediate_size, g.spec.column_unit)
    gates, up = g.linear(y, (("gate_proj", width), ("up_proj", width)), bias=mlp.bias)
    return g.gated_mul(gates, up, mlp.gate)


def join(g: Graph, x: Value, layer: LayerSpec, inputs: Value, weight: str, *, bias: bool) -> Value:
    """Adds what a block's last product gives to the residual, in the layer's form."""
    normed = layer.form in ("post", "both")
    if not normed and layer.residual_factor == 1:
        return g.linear_add(x, inputs, weight, bias=bias)
    total = g.linear_sum(inputs, weight, bias=bias)
    if normed:
        name = "mlp_out_norm" if weight == "down_proj" else "attention_out_norm"
        total = g.norm(total, name, out="normed")
    return g.add(x, total, f"{weight}.add", factor=layer.residual_factor)


def join_mixture(g: Graph, x: Value, layer: LayerSpec, y: Value, mixture: MixtureSpec) -> Value:
    """Adds what a mixture of gated MLPs (Shazeer et al. 2017, arXiv:1701.06538) makes of ``y`` to
    the residual, in the layer's form."""
    routes = g.route(y, mixture)
    made = g.expert_linear(y, routes, mixture)
    normed = layer.form in ("post", "both")
    if not normed and layer.residual_factor == 1:
        return g.expert_add(x, made, routes, mixture)
    total = g.expert_sum(made, routes, mixture)
    if normed:
        total = g.norm(total, "mlp_out_norm", out="normed")
    return g.add(x, total, "experts.down.add", factor=layer.residual_factor)


def layer_block(g: Graph, x: Value, layer: LayerSpec) -> Value:
    """Attention and an MLP, in the layer's form."""
    attention, mlp = layer.attention, layer.mlp
    y = x if layer.form == "post" else g.norm(x, "input_norm")
    bias, output = False, "o_proj"
    if isinstance(attention, LinearSpec):
        attended, output = attend_linear(g, y, attention), "delta_o_proj"
    elif isinstance(attention, LatentSpec):
        attended = attend_latent(g, y, attention)
    else:
        attended, bias = attend(g, y, attention), attention.output_bias
    x = join(g, x, layer, attended, output, bias=bias)
    if layer.form == "post":
        y = x
    elif layer.form != "parallel":
        y = g.norm(x, "post_norm")
    if isinstance(mlp, MixtureSpec):
        return join_mixture(g, x, layer, y, mlp)
    return join(g, x, layer, gate(g, y, mlp), "down_proj", bias=mlp.bias)


def decoder(spec: ModelSpec, *, further: bool = False) -> Graph:
    """A stack of layers between an embedding and a vocabulary; with ``further`` also the pass in
    which the model's further layer drafts."""
    g = Graph(spec)
    x = g.embed()
    for index, layer in enumerate(spec.layers):
        with g.layer(index):
            x = layer_block(g, x, layer)
    g.logits(g.norm(x, "norm", out=HIDDEN if further else "y"))
    if further:
        further_layer(g, spec)
    return g


def further_layer(g: Graph, spec: ModelSpec) -> None:
    """The layer that predicts one token further (DeepSeek-V3, arXiv:2412.19437): from the normed
    hidden state of a position and the token after it. What it leaves in turn is such a state, of
    the position after, so that it can go on from its own guesses. It has a cache of its own and
    shares the embedding and the head with the model."""
    assert spec.further is not None, "the model has no further layer"
    with g.drafting():
        pair = ((g.embed(), "enorm"), (g.last_hidden(), "hnorm"))
        x = layer_block(g, g.join_normed(pair, "eh_proj"), spec.further)
        g.logits(g.norm(x, "shared_head_norm", out=HIDDEN))
