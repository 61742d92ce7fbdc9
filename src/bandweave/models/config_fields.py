"""What becomes of the fields of a ``config.json`` that no family reads: they are refused by name
where they change what is computed, and ignored where they do not.

A model class of transformers reads a fixed list of fields, keeps all others and never looks at
them. So a field that is not named here changes nothing there either. Refused are (1) the fields by
which transformers changes the computation of any model, (2) those by which other families change
theirs: a model that was trained with one of them would give other answers without it. Knows no
family and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models.config import Config, ConfigError, table
from bandweave.shown import shown

#: Fields that transformers itself obeys, whatever the family: what they ask for.
_OBEYED: Mapping[str, str] = {
    "per_layer_config": "layers with configs of their own",
    "text_config": "a model within a multimodal one",
    "configuration_files": "another config file in the place of this one",
    "transformers_weights": "weight files of another name",
    "fusion_config": "fused layers",
    "pruned_heads": "heads that were taken out",
    "attention_chunk_size": "attention within chunks",
    "kv_sharing_modes": "layers that share keys and values",
    "num_kv_shared_layers": "layers that share keys and values",
}

#: Fields of other families' arithmetic: what they ask for, and the value that changes nothing.
_FOREIGN: Mapping[str, tuple[str, Any]] = {
    "attn_logit_softcapping": ("capped attention scores", None),
    "final_logit_softcapping": ("capped logits", None),
    "query_pre_attn_scalar": ("another scale of the attention scores", None),
    "attention_multiplier": ("another scale of the attention scores", None),
    "embedding_multiplier": ("scaled embeddings", 1),
    "residual_multiplier": ("scaled residuals", 1),
    "logits_scaling": ("scaled logits", 1),
    "logit_scale": ("scaled logits", 1),
    "scale_emb": ("scaled embeddings", 1),
    "scale_depth": ("scaled residuals", None),
    "clip_qkv": ("clipped queries, keys and values", None),
    "qk_layernorm": ("norms of queries and keys", False),
    "use_qk_norm": ("norms of queries and keys", False),
    "use_bias": ("biases", False),
    "qkv_bias": ("biases", False),
    "alibi": ("biases for distances in the place of rope", False),
    "use_alibi": ("biases for distances in the place of rope", False),
    "use_parallel_residual": ("attention and MLP side by side", False),
    "rope_interleave": ("another order of rope's pairs", False),
    "rope_interleaved": ("another order of rope's pairs", False),
    "no_rope_layers": ("layers without rope", None),
    "no_rope_layer_interval": ("layers without rope", None),
    "layers_block_type": ("layers of several kinds", None),
    "sliding_window_pattern": ("windows in some of the layers", None),
    "num_local_experts": ("experts", 0),
    "num_experts": ("experts", 0),
    "n_routed_experts": ("experts", 0),
    "n_shared_experts": ("experts that every token goes to", 0),
    "shared_expert_intermediate_size": ("an expert that every token goes to", 0),
    "shared_intermediate_size": ("an expert that every token goes to", 0),
    "n_group": ("experts that are chosen by groups", 1),
    "routed_scaling_factor": ("scaled weights of experts", 1),
    "scoring_func": ("scores of experts of another kind", None),
    "topk_method": ("another choice of experts", None),
    "first_k_dense_replace": ("first layers without experts", 0),
    "moe_layer_freq": ("experts in some of the layers", 1),
    "mlp_layer_types": ("experts in some of the layers", None),
    "decoder_sparse_step": ("experts in some of the layers", 1),
    "mlp_only_layers": ("experts in some of the layers", None),
    "kv_lora_rank": ("latent attention", None),
}

#: Those of them that say which layers have experts, as DeepSeek's configs have it, and how a router
#: chooses.
DEEPSEEK_MIXTURE = (
    "n_routed_experts", "n_shared_experts", "n_group", "routed_scaling_factor", "scoring_func",
    "topk_method", "first_k_dense_replace", "moe_layer_freq", "mlp_layer_types",
)  # fmt: skip

#: Neutral whatever the field is.
_NOTHING: tuple[Any, ...] = (None, False, [], {}, "")


def check_fields(config: Config, own: tuple[str, ...] = ()) -> None:
    """``ConfigError`` names the first field that asks for what the family does not compute.
    ``own``: those of the fields above that say what it computes anyway."""
    _check_not_mlx(config)
    if config.get("is_causal") is False:
        raise ConfigError("config.json: is_causal is false; models that see ahead cannot be run")
    if config.get("is_encoder_decoder"):
        raise ConfigError("config.json: is_encoder_decoder is set; only decoders can be run")
    for name, what in _OBEYED.items():
        if name not in own and config.get(name) not in _NOTHING:
            raise _unsupported(name, config[name], what)
    for name, (what, neutral) in _FOREIGN.items():
        value = config.get(name)
        if name not in own and value not in _NOTHING and value != neutral:
            raise _unsupported(name, value, what)


def text_of(
    config: Config,
    architecture: str,
    whole: Mapping[str, str],
    own: tuple[str, ...],
    *,
    tied: bool,
    types: tuple[str, ...] = (),
) -> tuple[Config, str]:
    """The config and the architecture of what reads and writes text: the ``text_config`` of a
    multimodal model, which holds for no other.

    ``whole``: architectures of multimodal models, with those of their text parts. ``own``: as in
    ``check_fields``. ``tied``: whether the head is the embedding where neither the whole nor its
    text says; the whole's word goes first. ``types``: the ``model_type`` that its text may have,
    the first where it has none; any where there are none.
    """
    if architecture in whole:
        part = table(config, "text_config")
        kind = part.get("model_type")
        if types and kind is not None and kind not in types:
            raise ConfigError(
                f"config.json: model_type of text_config is {shown(kind)}, which cannot be run "
                f"within a model of the architecture {architecture}; {' or '.join(types)} can"
            )
        check_fields(part, own)
        ties = [one.get("tie_word_embeddings") for one in (config, part)]
        said = next((one for one in ties if one is not None), tied)
        config, architecture = {**part, "tie_word_embeddings": said}, whole[architecture]
    if config.get("text_config"):
        raise ConfigError(
            f"config.json: text_config is given, but a model of the architecture {architecture} "
            "has none"
        )
    return config, architecture


def refuse_biases(config: Config, *names: str) -> None:
    """Refuses biases in a family whose class never has any, whatever the config says."""
    for name in names:
        if config.get(name) not in _NOTHING:
            raise ConfigError(
                f"config.json: {name} is {shown(config[name])}, but models of this family have no "
                "such biases"
            )


def _check_not_mlx(config: Config) -> None:
    mlx = config.get("quantization")
    if mlx not in _NOTHING and config.get("quantization_config") in (*_NOTHING, mlx):
        raise ConfigError(
            "the model was quantised for MLX ('quantization' in config.json), whose weights only "
            "MLX reads; download the original model, bandweave quantises while loading"
        )


def _unsupported(name: str, value: Any, what: str) -> ConfigError:
    return ConfigError(
        f"config.json: {name} is {shown(value)}, which asks for {what}; no family that can be run "
        "has that"
    )
