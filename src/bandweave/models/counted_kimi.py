"""Kimi Linear and Kimi K3, planned for and not run: the counts of their layers.

Three layers in four have Kimi's delta attention, a recurrent state for each head; the others have
latent attention, the last layer too. Kimi K3's experts see a narrower row than the model's, its
attention has gates of full rank. Fields follow the code that came with the checkpoints. Knows no
files.
"""

from __future__ import annotations

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.model_shape import AttentionShape, LayerShape

_GATED = 3  # matrices of an MLP with a gate
_CONVOLVED = 3  # queries, keys and values, each by itself


def kimi_layers(config: Config) -> tuple[LayerShape, ...]:
    """The layers of a config of ``model_type`` ``kimi_linear``; ``ConfigError`` where it lacks a
    size."""
    count = fields.integer(config, "num_hidden_layers")
    linear = fields.table(config, "linear_attn_config")
    whole = _numbers(linear, "full_attn_layers", count)
    dense = fields.count(config, "first_k_dense_replace")
    latent, delta = _latent(config), _delta(config, linear)
    mixture, plain = _mixture(config), _dense(config)
    norms = 2 * fields.integer(config, "hidden_size")
    return tuple(
        LayerShape(
            attention=latent if index + 1 in whole else delta,
            norm_parameters=norms,
            **(plain if index < dense else mixture),
        )
        for index in range(count)
    )


def _delta(config: Config, linear: Config) -> AttentionShape:
    """A state of ``head_dim`` squared a head; decays by a projection of low rank, the gate of the
    output by one of low or of full rank."""
    hidden = fields.integer(config, "hidden_size")
    heads, dim = (fields.integer(linear, name) for name in ("num_heads", "head_dim"))
    width = heads * dim
    low = hidden * dim + dim * width
    gate = hidden * width if fields.flag(linear, "use_full_rank_gate", False) else low
    convolution = _CONVOLVED * width * fields.integer(linear, "short_conv_kernel_size")
    return AttentionShape(
        kind="linear",
        heads=heads,
        kv_heads=heads,
        parameters=4 * hidden * width + low + gate + hidden * heads + convolution + width,
        kv_elements=0,
        flops_per_pair=0,
        expanded_flops_per_pair=0,
        state_elements=width * dim,
    )


def _latent(config: Config) -> AttentionShape:
    """DeepSeek's latent attention (arXiv:2405.04434); in Kimi K3 with a gate of the output."""
    hidden = fields.integer(config, "hidden_size")
    heads = fields.integer(config, "num_attention_heads")
    nope, rope, value, rank = (
        fields.integer(config, name)
        for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    )
    query = fields.count(config, "q_lora_rank")
    keys = heads * (nope + rope)
    parameters = hidden * query + query * keys if query else hidden * keys
    parameters += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    if fields.flag(config, "mla_use_output_gate", False):
        parameters += hidden * heads * value
    return AttentionShape(
        kind="latent",
        heads=heads,
        kv_heads=1,
        parameters=parameters,
        kv_elements=rank + rope,
        flops_per_pair=2 * heads * (2 * rank + rope),
        expanded_flops_per_pair=2 * heads * (nope + rope + value),
    )


def _mixture(config: Config) -> dict[str, int]:
    hidden = fields.integer(config, "hidden_size")
    width = fields.integer(config, "moe_intermediate_size")
    count = fields.integer(config, "num_experts")
    top_k = fields.integer(config, "num_experts_per_token")
    if top_k > count:
        raise ConfigError(f"config.json: {top_k} of {count} experts cannot be chosen")
    seen = fields.integer(config, "routed_expert_hidden_size", hidden)
    around = 2 * hidden * seen if seen != hidden else 0
    shared = fields.count(config, "num_shared_experts") * width
    return {
        "router_parameters": count * (hidden + 1),
        "expert_parameters": _GATED * seen * width,
        "expert_width": width,
        "experts": count,
        "top_k": top_k,
        "shared_parameters": _GATED * hidden * shared + around,
    }


def _dense(config: Config) -> dict[str, int]:
    hidden = fields.integer(config, "hidden_size")
    width = fields.integer(config, "intermediate_size")
    return {"dense_parameters": _GATED * hidden * width, "dense_width": width}


def _numbers(config: Config, name: str, count: int) -> frozenset[int]:
    """Layers by number, from 1."""
    found = config.get(name)
    whole = isinstance(found, list) and all(type(one) is int and 1 <= one <= count for one in found)
    if not whole:
        raise ConfigError(
            f"config.json: linear_attn_config.{name} must list numbers of layers from 1 to {count}"
        )
    return frozenset(found)  # type: ignore[arg-type]
