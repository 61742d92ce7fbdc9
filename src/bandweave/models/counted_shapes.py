"""Families that are planned for and not run, whose layers no ``ModelSpec`` has: their counts.

Attention that shares keys, latent experts, state spaces, embeddings of every layer: what is read
and cached follows from a few sizes, and that is all that is taken from their config.json. Fields
follow transformers' classes, or the code that came with the checkpoint. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.counted_kimi import kimi_layers
from bandweave.models.model_shape import AttentionShape, LayerShape
from bandweave.shown import shown

_GATED, _PLAIN = 3, 2  # matrices of an MLP with and without a gate
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class CountedModel:
    """``embedding``: parameters of which a token reads a row; ``head``: what it reads all of, the
    table itself where the two are tied (it then counts as head alone)."""

    layers: tuple[LayerShape, ...]
    embedding: int
    head: int


def counted_shape(config: Config) -> CountedModel | None:
    """The counts of a config with these families' ``model_type``; None for any other."""
    family = _FAMILIES.get(fields.text(config, "model_type") or "")
    if family is None:
        return None
    layers, rows = family(config)
    table = fields.integer(config, "vocab_size") * fields.integer(config, "hidden_size")
    tied = fields.flag(config, "tie_word_embeddings", False)
    return CountedModel(layers=layers, embedding=rows + (0 if tied else table), head=table)


def model_types() -> tuple[str, ...]:
    return tuple(_FAMILIES)


Layers = tuple[tuple[LayerShape, ...], int]


def _heads(
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    value_dim: int | None = None,
    window: int | None = None,
    values: bool = True,
    shared: bool = False,
    extra: int = 0,
) -> AttentionShape:
    """Grouped-query attention. ``values`` False: keys serve as values; ``shared``: keys and values
    are those of an earlier layer, so that nothing is cached; ``extra``: parameters beside."""
    value_dim = head_dim if value_dim is None else value_dim
    queries, out = heads * head_dim, heads * value_dim
    keys, made = kv_heads * head_dim, kv_heads * value_dim if values else 0
    parameters = hidden * queries + out * hidden + extra
    parameters += 0 if shared else hidden * (keys + made)
    pairs = 2 * heads * (head_dim + value_dim)
    return AttentionShape(
        kind="heads",
        heads=heads,
        kv_heads=kv_heads,
        parameters=parameters,
        kv_elements=0 if shared else keys + kv_heads * value_dim,
        flops_per_pair=pairs,
        expanded_flops_per_pair=pairs,
        window=window,
    )


def _experts(
    hidden: int, config: Config, *, count: int, top_k: int, width: int, shared: int = 0,
    matrices: int = _GATED, inside: int | None = None,
) -> dict[str, int]:  # fmt: skip
    """The fields of a mixture. ``shared``: the width of what every token goes to; ``inside``: the
    width that experts see, where it is not that of the model."""
    if top_k > count:
        raise ConfigError(f"config.json: {top_k} of {count} experts cannot be chosen")
    seen = hidden if inside is None else inside
    around = 0 if inside is None else 2 * hidden * inside
    return {
        "router_parameters": count * (hidden + 1),
        "expert_parameters": matrices * seen * width,
        "expert_width": width,
        "experts": count,
        "top_k": top_k,
        "shared_parameters": matrices * hidden * shared + around,
    }


def _dense(hidden: int, width: int) -> dict[str, int]:
    return {"dense_parameters": _GATED * hidden * width, "dense_width": width}


def _gemma(config: Config) -> Layers:
    """Gemma 3n and 4: windows in most layers, wider heads in the others, the last layers without
    keys of their own, and in the small models a row of embeddings for every layer."""
    hidden, count = (fields.integer(config, name) for name in ("hidden_size", "num_hidden_layers"))
    heads, head_dim = fields.integer(config, "num_attention_heads"), fields.head_dim(config)
    kv_heads = fields.kv_heads(config)
    wide = fields.integer(config, "global_head_dim", head_dim)
    wide_kv = fields.integer(config, "num_global_key_value_heads", kv_heads)
    own = count - fields.count(config, "num_kv_shared_layers")
    per_layer = fields.count(config, "hidden_size_per_layer_input")
    same = fields.flag(config, "attention_k_eq_v", False)
    window = fields.integer(config, "sliding_window")
    laurel = fields.count(config, "laurel_rank")
    # Gate, projection and its part of the one projection from the model's own embeddings; of Gemma
    # 3n the low-rank path, and its part of the projections between its four streams.
    beside = 3 * hidden * per_layer + 2 * hidden * laurel
    beside += 6 * hidden * hidden // count if laurel else 0
    width = fields.integer(config, "intermediate_size")
    doubled = fields.flag(config, "use_double_wide_mlp", False)

    def layer(index: int, kind: str) -> LayerShape:
        full, shared = kind == _FULL, index >= own
        attention = _heads(
            hidden, heads, wide_kv if full else kv_heads, wide if full else head_dim,
            window=None if full else window, values=not (full and same), shared=shared,
            extra=beside,
        )  # fmt: skip
        mlp: dict[str, int] = _dense(hidden, width * (2 if shared and doubled else 1))
        if fields.flag(config, "enable_moe_block", False):
            mlp |= _experts(
                hidden, config, count=fields.integer(config, "num_experts"),
                top_k=fields.integer(config, "top_k_experts"),
                width=fields.integer(config, "moe_intermediate_size"),
            )  # fmt: skip
        return LayerShape(attention=attention, norm_parameters=6 * hidden, **mlp)

    rows = 0
    if per_layer:
        rows = fields.integer(config, "vocab_size_per_layer_input", 262144) * per_layer * count
    layers = [layer(index, kind) for index, kind in enumerate(_kinds(config, count, 5))]
    return tuple(layers), rows


def _nemotron_h(config: Config) -> Layers:
    """State spaces (Mamba 2), attention and mixtures in turn, each a layer of its own; here a
    mixture joins the mixer before it, as in other models."""
    hidden = fields.integer(config, "hidden_size")
    kinds = _blocks(config)
    heads, dim = (fields.integer(config, name) for name in ("mamba_num_heads", "mamba_head_dim"))
    state, groups = fields.integer(config, "ssm_state_size"), fields.integer(config, "n_groups")
    inner = heads * dim
    mixed = inner + 2 * groups * state
    convolution = fields.integer(config, "conv_kernel") * mixed
    mamba = AttentionShape(
        kind="linear",
        heads=heads,
        kv_heads=groups,
        parameters=hidden * (inner + mixed + heads) + convolution + inner * hidden + inner,
        kv_elements=0,
        flops_per_pair=0,
        expanded_flops_per_pair=0,
        state_elements=inner * state,
    )
    attention = _heads(
        hidden, fields.integer(config, "num_attention_heads"), fields.kv_heads(config),
        fields.head_dim(config),
    )  # fmt: skip
    mixture = _experts(
        hidden, config, count=fields.integer(config, "n_routed_experts"),
        top_k=fields.integer(config, "num_experts_per_tok"),
        width=fields.integer(config, "moe_intermediate_size"),
        shared=fields.integer(config, "moe_shared_expert_intermediate_size"),
        matrices=_PLAIN, inside=fields.count(config, "moe_latent_size") or None,
    )  # fmt: skip
    nothing = AttentionShape(kind="heads", heads=1, kv_heads=1, parameters=0, kv_elements=0,
                             flops_per_pair=0, expanded_flops_per_pair=0)  # fmt: skip
    layers: list[LayerShape] = []
    mixer: AttentionShape | None = None
    for kind in (*kinds, "end"):
        if kind == "moe":
            layers.append(LayerShape(attention=mixer or nothing, norm_parameters=2 * hidden,
                                     **mixture))  # fmt: skip
            mixer = None
            continue
        if mixer is not None:
            layers.append(LayerShape(attention=mixer, norm_parameters=hidden))
        mixer = None if kind == "end" else mamba if kind == "mamba" else attention
    return tuple(layers), 0


def _mimo(config: Config) -> Layers:
    """MiMo V2: windows of 128 in most layers, with keys of another width than values."""
    hidden, count = (fields.integer(config, name) for name in ("hidden_size", "num_hidden_layers"))
    sparse, slides = (_flags(config, name, count) for name in ("moe_layer_freq",
                                                               "hybrid_layer_pattern"))  # fmt: skip
    mixture = _experts(
        hidden, config, count=fields.integer(config, "n_routed_experts"),
        top_k=fields.integer(config, "num_experts_per_tok"),
        width=fields.integer(config, "moe_intermediate_size"),
    )  # fmt: skip
    dense = _dense(hidden, fields.integer(config, "intermediate_size"))

    def attention(slide: bool) -> AttentionShape:
        prefix = "swa_" if slide else ""
        heads = fields.integer(config, f"{prefix}num_attention_heads")
        return _heads(
            hidden, heads, fields.integer(config, f"{prefix}num_key_value_heads"),
            fields.integer(config, f"{prefix}head_dim"),
            value_dim=fields.integer(config, f"{prefix}v_head_dim"),
            window=fields.integer(config, "sliding_window") if slide else None,
        )  # fmt: skip

    return tuple(
        LayerShape(attention=attention(slide), norm_parameters=2 * hidden,
                   **(mixture if routes else dense))
        for slide, routes in zip(slides, sparse, strict=True)
    ), 0  # fmt: skip


def _step(config: Config) -> Layers:
    """Step 3.5: three layers of four have a window, and more heads."""
    hidden, count = (fields.integer(config, name) for name in ("hidden_size", "num_hidden_layers"))
    heads, head_dim = fields.integer(config, "num_attention_heads"), fields.head_dim(config)
    groups = fields.integer(config, "num_attention_groups", 8)
    more = fields.integer(config, "sliding_num_attention_heads", heads)
    mixture = _experts(
        hidden, config, count=fields.integer(config, "moe_num_experts"),
        top_k=fields.integer(config, "moe_top_k"),
        width=fields.integer(config, "moe_intermediate_size"),
        shared=fields.integer(config, "share_expert_dim"),
    )  # fmt: skip
    dense = _dense(hidden, fields.integer(config, "intermediate_size"))
    first = fields.integer(config, "first_k_dense_replace", 3)
    window = fields.integer(config, "sliding_window")

    def layer(index: int, kind: str) -> LayerShape:
        slides = kind == _SLIDING
        attention = _heads(hidden, more if slides else heads, groups, head_dim,
                           window=window if slides else None)  # fmt: skip
        return LayerShape(attention=attention, norm_parameters=2 * hidden,
                          **(mixture if index >= first else dense))  # fmt: skip

    return tuple(layer(i, kind) for i, kind in enumerate(_kinds(config, count, 3))), 0


def _deepseek_v4(config: Config) -> Layers:
    """DeepSeek V4: one key of all heads, which serves as value; beyond a window, one for each 4 or
    128 positions, of the former the best that an indexer finds."""
    hidden, count = (fields.integer(config, name) for name in ("hidden_size", "num_hidden_layers"))
    heads, dim = fields.integer(config, "num_attention_heads"), fields.head_dim(config)
    rank, out = fields.integer(config, "q_lora_rank"), fields.integer(config, "o_lora_rank")
    groups = fields.integer(config, "o_groups")
    index_heads, index_dim = (fields.integer(config, name)
                              for name in ("index_n_heads", "index_head_dim"))  # fmt: skip
    parameters = hidden * rank + rank * heads * dim + hidden * dim
    parameters += heads * dim * out + groups * out * hidden
    mixture = _experts(
        hidden, config, count=fields.integer(config, "n_routed_experts"),
        top_k=fields.integer(config, "num_experts_per_tok"),
        width=fields.integer(config, "moe_intermediate_size"),
        shared=fields.integer(config, "moe_intermediate_size"),
    )  # fmt: skip
    ratios = config.get("compress_ratios")
    if not isinstance(ratios, list) or not all(type(one) is int and one >= 0 for one in ratios):
        raise ConfigError(f"config.json: compress_ratios is {shown(ratios)}; it must be a list")

    def layer(ratio: int) -> LayerShape:
        compressed, indexed = 0 if ratio == 0 else 2 * hidden * dim, 0
        if 0 < ratio <= 4:
            indexed = rank * index_heads * index_dim + hidden * (2 * index_dim + index_heads)
        attention = AttentionShape(
            kind="latent",
            heads=heads,
            kv_heads=1,
            parameters=parameters + compressed + indexed,
            kv_elements=dim if ratio == 0 else -(-(dim + bool(indexed) * index_dim) // ratio),
            flops_per_pair=4 * heads * dim // max(1, ratio),
            expanded_flops_per_pair=4 * heads * dim // max(1, ratio),
            window=fields.integer(config, "sliding_window") if ratio == 0 else None,
        )
        return LayerShape(attention=attention, norm_parameters=2 * hidden, **mixture)

    return tuple(layer(ratio) for ratio in ratios[:count]), 0


def _minimax_m3(config: Config) -> Layers:
    """MiniMax M3: grouped-query attention that reads the best blocks of a long cache; counted as
    if it read all."""
    hidden, count = (fields.integer(config, name) for name in ("hidden_size", "num_hidden_layers"))
    attention = _heads(hidden, fields.integer(config, "num_attention_heads"),
                       fields.kv_heads(config), fields.head_dim(config))  # fmt: skip
    mixture = _experts(
        hidden, config, count=fields.integer(config, "num_local_experts"),
        top_k=fields.integer(config, "num_experts_per_tok"),
        width=fields.integer(config, "intermediate_size"),
        shared=fields.count(config, "shared_intermediate_size"),
    )  # fmt: skip
    dense = _dense(hidden, fields.integer(config, "dense_intermediate_size"))
    first = fields.count(config, "first_k_dense_replace")
    return tuple(
        LayerShape(attention=attention, norm_parameters=2 * hidden,
                   **(mixture if index >= first else dense))
        for index in range(count)
    ), 0  # fmt: skip


def _kinds(config: Config, count: int, sliding: int) -> list[str]:
    """What each layer's attention sees, as ``layer_types`` lists it; without it, so many layers
    with a window to one without: before it where there are five, after it where there are three."""
    kinds = fields.texts(config, "layer_types")
    if not kinds:
        whole = 0 if sliding == 3 else sliding
        return [_FULL if index % (sliding + 1) == whole else _SLIDING for index in range(count)]
    if len(kinds) < count or not set(kinds) <= {_FULL, _SLIDING}:
        raise ConfigError(
            f"config.json: layer_types must name each of the {count} layers {_FULL} or {_SLIDING}"
        )
    return list(kinds[:count])


def _flags(config: Config, name: str, count: int) -> list[bool]:
    found = config.get(name)
    if not isinstance(found, list) or len(found) != count or not set(found) <= {0, 1}:
        raise ConfigError(
            f"config.json: {name} is {shown(found)}; it must have a 0 or a 1 for each of {count} "
            "layers"
        )
    return [bool(one) for one in found]


def _blocks(config: Config) -> list[str]:
    """Nemotron's layers, as letters or as words."""
    pattern = fields.text(config, "hybrid_override_pattern")
    if pattern is None:
        return list(fields.texts(config, "layers_block_type"))
    words = {"M": "mamba", "E": "moe", "*": "attention"}
    if not pattern or not set(pattern) <= words.keys():
        raise ConfigError(
            f"config.json: hybrid_override_pattern is {shown(pattern)}; known are M, E and *"
        )
    return [words[letter] for letter in pattern]


def _kimi(config: Config) -> Layers:
    return kimi_layers(config), 0


#: By ``model_type``, of a multimodal model that of its ``text_config``.
_FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Layers]] = {
    "gemma3n_text": _gemma,
    "gemma4_text": _gemma,
    "gemma4_unified_text": _gemma,
    "nemotron_h": _nemotron_h,
    "mimo_v2_flash": _mimo,
    "step3p5": _step,
    "deepseek_v4": _deepseek_v4,
    "minimax_m3": _minimax_m3,
    "kimi_linear": _kimi,
}
