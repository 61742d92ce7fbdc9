"""Configs of many spellings, and what is compared of the models that they ask for.

Knows fields and values; imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FIELDS = Path(__file__).parent / "config_fields.json"
STORED = Path(__file__).parent / "configs.json"
COUNT = 360

ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
LAYERS, LONGEST = 3, 64

#: Values that fields are tried with, beside being absent.
_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish", "gelu", None),
    "num_key_value_heads": (1, 2, 4, None),
    "head_dim": (6, 8, None),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
    "rms_norm_eps": (1e-5, 1e-6),
    "rope_theta": (5000.0, 1000000, None),
    "partial_rotary_factor": (1.0, 0.5),
    "original_max_position_embeddings": (16, 32),
    "sliding_window": (8, 16, 64, 4096, None),
    "use_sliding_window": (True, False),
    "max_window_layers": (0, 1, 3, 28),
    "layer_types": (
        ["full_attention"] * LAYERS, ["sliding_attention"] * LAYERS, ["attention"] * LAYERS,
        ["full_attention", "sliding_attention", "full_attention"], None,
    ),
    "tie_word_embeddings": (True, False),
    "is_causal": (True, False),
    "pretraining_tp": (1, 2),
    "attention_dropout": (0.0, 0.1),
    "initializer_range": (0.02, 0.5),
    "use_cache": (True, False),
    "torch_dtype": ("bfloat16", "float32", None),
    "chunk_size_feed_forward": (0, 2),
    "auto_map": ({"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},),
}  # fmt: skip


def cases() -> list[dict[str, Any]]:
    """The configs, the same ones every time."""
    return [_case(random.Random(f"config {number}")) for number in range(COUNT)]


def stored() -> list[dict[str, Any]]:
    """``config`` and ``result`` of every case, as transformers gave them."""
    return json.loads(STORED.read_text())


def stored_fields() -> dict[str, dict[str, Any]]:
    """The fields of transformers' config classes by ``model_type``, with their defaults."""
    return json.loads(FIELDS.read_text())


def _case(chance: random.Random) -> dict[str, Any]:
    model_type = chance.choice(list(ARCHITECTURES))
    config: dict[str, Any] = {
        "model_type": model_type, "hidden_size": 32, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 40,
        "max_position_embeddings": LONGEST,
    }  # fmt: skip
    if chance.random() < 0.7:
        config["architectures"] = [ARCHITECTURES[model_type]]
    if model_type == "mistral" or chance.random() < 0.8:
        config["num_key_value_heads"] = 2
    if model_type == "qwen3":
        config["head_dim"] = 8
    for name in chance.sample(list(_VALUES), chance.randint(0, 5)):
        config[name] = chance.choice(_VALUES[name])
    for name in ("rope_scaling", "rope_parameters"):
        if chance.random() < 0.35:
            config[name] = _rope(chance)
    return config


def _rope(chance: random.Random) -> dict[str, Any] | None:
    """Parameters of a rope, some of them missing, some not known to its type."""
    kind = chance.choice(("default", "linear", "llama3", "llama3", "yarn", "dynamic", None))
    if kind is None:
        return chance.choice((None, {}))
    result: dict[str, Any] = {chance.choice(("rope_type", "rope_type", "type")): kind}
    if chance.random() < 0.2:
        result["type"] = chance.choice(("default", "linear"))
    for name, values in (
        ("factor", (2, 4.0, 8.0)), ("low_freq_factor", (1.0, 2)), ("high_freq_factor", (4.0, 8)),
    ):  # fmt: skip
        if chance.random() < 0.9:
            result[name] = chance.choice(values)
    for name, values in (
        ("rope_theta", (2000.0, 500000.0)), ("original_max_position_embeddings", (16, 32)),
        ("attention_factor", (1.0, 1.5)), ("partial_rotary_factor", (1.0, 0.5)),
        ("full_attention", ({"rope_type": "default"},)),
    ):  # fmt: skip
        if chance.random() < (0.05 if name in ("full_attention", "partial_rotary_factor") else 0.4):
            result[name] = chance.choice(values)
    return result
