"""From a GGUF header's metadata to the fields of a Hugging Face config.json, as far as sizes go.

Knows the names that llama.cpp gives to families and sizes; knows no files.
Source: llama.cpp's gguf-py/gguf/constants.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.spec import MOST_SIZE
from bandweave.shown import shown

# GGUF's architecture: config.json's model_type and architecture.
_FAMILIES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "mistral": ("mistral", "MistralForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
    "deepseek2": ("deepseek_v3", "DeepseekV3ForCausalLM"),
    "gpt-oss": ("gpt_oss", "GptOssForCausalLM"),
    "glm4moe": ("glm4_moe", "Glm4MoeForCausalLM"),
    "minimax-m2": ("minimax_m2", "MiniMaxM2ForCausalLM"),
}

# What config.json calls the number of experts, by model_type.
_EXPERTS = {
    "deepseek_v3": "n_routed_experts",
    "glm4_moe": "n_routed_experts",
    "qwen3_moe": "num_experts",
}

_FIELDS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.q_lora_rank": "q_lora_rank",
    "nextn_predict_layers": "num_nextn_predict_layers",
}


def config_from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The fields; ``ConfigError`` for a family whose counts are not known.

    ``tensors`` by name, each with a ``shape``: what they show (vocabulary, biases, norms of query
    heads, whether the head is tied) is taken from them."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise ConfigError(f"GGUF: architecture {shown(architecture)} is not known; known: {known}")
    model_type, name = _FAMILIES[architecture]
    sizes = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    config: dict[str, Any] = {
        field: _whole(sizes[key]) for key, field in _FIELDS.items() if key in sizes
    }
    if "token_embd.weight" not in tensors:
        raise ConfigError("GGUF: there is no token_embd.weight; is this a whole model?")
    config["vocab_size"] = tensors["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    if "attention.key_length" in sizes:
        config["head_dim"] = sizes["attention.key_length"]
    experts = _size(sizes, "expert_count")
    if experts:
        if model_type == "llama":
            model_type, name = "mixtral", "MixtralForCausalLM"
        config[_EXPERTS.get(model_type, "num_local_experts")] = experts
    if "kv_lora_rank" in config:
        config.setdefault("q_lora_rank", None)  # queries are projected at once
        config["n_group"] = _size(sizes, "expert_group_count") or 1
        config["topk_group"] = _size(sizes, "expert_group_used_count") or config["n_group"]
        rope = _size(sizes, "rope.dimension_count") or 64
        keys = _size(sizes, "attention.key_length_mla") or _size(sizes, "attention.key_length")
        if keys <= rope:
            raise ConfigError(
                f"GGUF: attention.key_length is {keys}; it must exceed the {rope} that are rotated"
            )
        config["qk_rope_head_dim"], config["qk_nope_head_dim"] = rope, keys - rope
        values = _size(sizes, "attention.value_length_mla")
        config["v_head_dim"] = values or _size(sizes, "attention.value_length") or None
        config["num_key_value_heads"] = config.get("num_attention_heads")
    config["attention_bias"] = "blk.0.attn_q.bias" in tensors and model_type != "qwen2"
    if model_type in ("glm4_moe", "minimax_m2"):  # others always have such norms, or never
        config["use_qk_norm"] = "blk.0.attn_q_norm.weight" in tensors
    _window(model_type, sizes, config)
    layers, drafts = _size(sizes, "block_count"), _size(sizes, "nextn_predict_layers")
    if layers:  # drafts' layers are stored behind the model's own
        config["num_hidden_layers"] = layers - drafts
    return {**config, "model_type": model_type, "architectures": [name], "hidden_act": "silu"}


def _window(model_type: str, sizes: Mapping[str, Any], config: dict[str, Any]) -> None:
    window = _size(sizes, "attention.sliding_window")
    config["sliding_window"] = window or None  # which is not to be left to a default
    if not window:
        return
    if model_type == "gemma3_text":
        config["sliding_window_pattern"] = 6


def _size(sizes: Mapping[str, Any], key: str) -> int:
    """A size; 0 where there is none."""
    value = _whole(sizes.get(key, 0))
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_SIZE:
        raise ConfigError(f"GGUF: {key} is {shown(value)}; it must be a size")
    return value


def _whole(value: Any) -> Any:
    """Some sizes are given by layer; those that are all equal count as one, of others the most."""
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return max(value)
    return value
