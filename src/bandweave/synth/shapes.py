"""Shape: the configuration of a well-known model that the engine runs, and changes of it.

The values come from ``planning/known_models``, the one home of models by name. Knows no weights.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bandweave.models.known_models import known_config, known_model, model_names
from bandweave.models.registry import spec_from_config
from bandweave.models.spec import ModelSpec

_LLAMA = "LlamaForCausalLM"
_QWEN3 = "Qwen3ForCausalLM"
_MISTRAL = "MistralForCausalLM"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes and constants of a model; ``head_dim`` None: ``hidden / heads``."""

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    context: int
    head_dim: int | None = None
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, float | int | str] | None = None
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """The fields of a Hugging Face ``config.json``, without dtype and token ids."""
        model_types = {_LLAMA: "llama", _QWEN3: "qwen3", _MISTRAL: "mistral"}
        config: dict[str, Any] = {
            "architectures": [self.architecture],
            "model_type": model_types[self.architecture],
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None if self.rope_scaling is None else dict(self.rope_scaling),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": self.tied,
            "use_cache": True,
        }
        if self.head_dim is not None:
            config["head_dim"] = self.head_dim
        if self.architecture == _LLAMA:
            config["mlp_bias"] = False
        if self.architecture == _MISTRAL:
            config["sliding_window"] = None  # absent, it would be 4096
        return config

    def spec(self) -> ModelSpec:
        """The spec of the model; ``ValueError`` where its sizes do not fit together."""
        return spec_from_config(self.config())


def shape_names() -> tuple[str, ...]:
    """The names that ``find_shape`` knows."""
    return tuple(_shapes())


def find_shape(
    name: str,
    *,
    layers: int | None = None,
    hidden: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    intermediate: int | None = None,
    vocab: int | None = None,
    context: int | None = None,
) -> Shape:
    """The shape of that name, with what is not None put in the place of its own values.

    ``ValueError`` for an unknown name, for a value below 1 and for sizes that do not fit together.
    """
    shapes = _shapes()
    shape = shapes.get(name)
    if shape is None:
        close = difflib.get_close_matches(name, shapes, n=1)
        hint = f"did you mean {close[0]}? Known" if close else "known"
        raise ValueError(f"no shape is called {name!r}; {hint} are {', '.join(shapes)}")
    changes = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": intermediate,
        "vocab": vocab,
        "context": context,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    for field, value in changes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{field} is {value!r}; it must be a positive integer")
    if not changes:
        return shape
    shape = dataclasses.replace(shape, **changes)
    try:
        shape.spec()
    except ValueError as error:
        asked = ", ".join(f"{field} {value}" for field, value in changes.items())
        raise ValueError(f"{name} with {asked} is no model: {error}") from error
    return shape


@lru_cache(maxsize=1)
def _shapes() -> Mapping[str, Shape]:
    return {
        name: _shape(name, known_config(name))
        for name in model_names()
        if known_model(name).runs_on_bandweave
    }


def _shape(name: str, config: Mapping[str, Any]) -> Shape:
    return Shape(
        name=name,
        architecture=config["architectures"][0],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        context=config["max_position_embeddings"],
        head_dim=config.get("head_dim"),
        norm_eps=config["rms_norm_eps"],
        rope_theta=config["rope_theta"],
        rope_scaling=config["rope_scaling"],
        tied=config["tie_word_embeddings"],
    )
