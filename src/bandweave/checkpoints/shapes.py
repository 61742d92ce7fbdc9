"""Shape: the configuration of a well-known model by name, as data, and changes of it.

Values are those of the config.json that the model's makers publish. Knows no files and no
weights.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bandweave.models.registry import spec_from_config
from bandweave.models.spec import ModelSpec

_LLAMA = "LlamaForCausalLM"
_QWEN3 = "Qwen3ForCausalLM"


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
        model_types = {_LLAMA: "llama", _QWEN3: "qwen3", "MistralForCausalLM": "mistral"}
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
        return config

    def spec(self) -> ModelSpec:
        """The spec of the model; ``ValueError`` where its sizes do not fit together."""
        return spec_from_config(self.config())


def shape_names() -> tuple[str, ...]:
    """The names that ``find_shape`` knows."""
    return tuple(_SHAPES)


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
    shape = _SHAPES.get(name)
    if shape is None:
        close = difflib.get_close_matches(name, _SHAPES, n=1)
        hint = f"did you mean {close[0]}? Known" if close else "known"
        raise ValueError(f"no shape is called {name!r}; {hint} are {', '.join(_SHAPES)}")
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


def _llama3_scaling(factor: float) -> dict[str, float | int | str]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _qwen3(name: str, **sizes: Any) -> Shape:
    return Shape(
        name=name, architecture=_QWEN3, kv_heads=8, head_dim=128, vocab=151936, context=40960,
        norm_eps=1e-6, rope_theta=1e6, **sizes,
    )  # fmt: skip


_SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            name="tiny", architecture=_LLAMA, layers=2, hidden=128, heads=4, kv_heads=2,
            intermediate=320, vocab=512, context=1024,
        ),
        Shape(
            name="smollm2-135m", architecture=_LLAMA, layers=30, hidden=576, heads=9, kv_heads=3,
            intermediate=1536, vocab=49152, context=8192, rope_theta=1e5, tied=True,
        ),
        _qwen3("qwen3-0.6b", layers=28, hidden=1024, heads=16, intermediate=3072, tied=True),
        Shape(
            name="tinyllama-1.1b", architecture=_LLAMA, layers=22, hidden=2048, heads=32,
            kv_heads=4, intermediate=5632, vocab=32000, context=2048,
        ),
        Shape(
            name="llama-3.2-1b", architecture=_LLAMA, layers=16, hidden=2048, heads=32, kv_heads=8,
            head_dim=64, intermediate=8192, vocab=128256, context=131072, rope_theta=5e5,
            rope_scaling=_llama3_scaling(32.0), tied=True,
        ),
        _qwen3("qwen3-1.7b", layers=28, hidden=2048, heads=16, intermediate=6144, tied=True),
        _qwen3("qwen3-4b", layers=36, hidden=2560, heads=32, intermediate=9728, tied=True),
        Shape(  # version 0.3, the one without a sliding window
            name="mistral-7b", architecture="MistralForCausalLM", layers=32, hidden=4096, heads=32,
            kv_heads=8, head_dim=128, intermediate=14336, vocab=32768, context=32768,
            rope_theta=1e6,
        ),
        Shape(
            name="llama-3.1-8b", architecture=_LLAMA, layers=32, hidden=4096, heads=32, kv_heads=8,
            intermediate=14336, vocab=128256, context=131072, rope_theta=5e5,
            rope_scaling=_llama3_scaling(8.0),
        ),
        _qwen3("qwen3-8b", layers=36, hidden=4096, heads=32, intermediate=12288),
    )
}  # fmt: skip
