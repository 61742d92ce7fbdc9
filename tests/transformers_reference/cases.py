"""The tiny models and token sequences whose logits are compared with transformers.

Knows sizes and names; imports neither torch nor transformers. Weights are made from a seed by
``tests.helpers.random_model``, so that only logits need storing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.models.registry import spec_from_config
from bandweave.models.spec import ModelSpec
from tests.helpers.random_model import F32, random_tensors
from tests.transformers_reference.family_cases import FAMILIES
from tests.transformers_reference.newer_cases import NEWER

FOLDER = Path(__file__).parent

PROMPT_LENGTHS = (5, 70, 133)  # within a page of 64 positions, beyond one, beyond two
NEW_TOKENS = 4
STORED_PROMPT_ROWS = (0, 1, 4, 39, 40, 41, 63, 64, 65, 127, 128, 132)  # around window and pages


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model: ``options`` are what transformers' config class takes."""

    name: str
    architecture: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config_path(self) -> Path:
        return FOLDER / f"{self.name}.config.json"

    @property
    def logits_path(self) -> Path:
        return FOLDER / f"{self.name}.npz"

    def config(self) -> dict[str, Any]:
        """The stored config.json."""
        return json.loads(self.config_path.read_text())

    def spec(self) -> ModelSpec:
        return spec_from_config(self.config())

    def tensors(self) -> dict[str, F32]:
        """The weights by bandweave's names."""
        return random_tensors(self.spec(), self.seed)


_LLAMA_LIKE = (
    Case(
        name="llama3_rope",
        architecture="LlamaForCausalLM",
        seed=1,
        options={
            "hidden_size": 66, "num_hidden_layers": 3, "num_attention_heads": 6,
            "num_key_value_heads": 3, "head_dim": 20, "intermediate_size": 172, "vocab_size": 301,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    Case(
        name="linear_rope",
        architecture="LlamaForCausalLM",
        seed=2,
        options={
            "hidden_size": 72, "num_hidden_layers": 2, "num_attention_heads": 6,
            "num_key_value_heads": 6, "intermediate_size": 200, "vocab_size": 270,
            "max_position_embeddings": 512, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        },
    ),
    Case(
        name="biases",
        architecture="LlamaForCausalLM",
        seed=3,
        options={
            "hidden_size": 80, "num_hidden_layers": 2, "num_attention_heads": 5,
            "num_key_value_heads": 5, "intermediate_size": 150, "vocab_size": 290,
            "max_position_embeddings": 512, "tie_word_embeddings": False,
            "attention_bias": True, "mlp_bias": True,
        },
    ),
    Case(
        name="grouped_queries",
        architecture="LlamaForCausalLM",
        seed=4,
        options={
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 16,
            "num_key_value_heads": 2, "intermediate_size": 352, "vocab_size": 320,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        },
    ),
    Case(
        name="sliding_window",
        architecture="MistralForCausalLM",
        seed=5,
        options={
            "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 130, "vocab_size": 300,
            "max_position_embeddings": 512, "sliding_window": 40, "tie_word_embeddings": False,
        },
    ),
    Case(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        seed=6,
        options={
            "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
            "num_key_value_heads": 2, "head_dim": 22, "intermediate_size": 190, "vocab_size": 310,
            "max_position_embeddings": 512, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    Case(
        name="qwen3_window",
        architecture="Qwen3ForCausalLM",
        seed=7,
        options={
            "hidden_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 140, "vocab_size": 280,
            "max_position_embeddings": 512, "tie_word_embeddings": False, "attention_bias": True,
            "use_sliding_window": True, "sliding_window": 40, "max_window_layers": 0,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.0},
        },
    ),
    Case(
        name="rope_of_default_length",
        architecture="LlamaForCausalLM",
        seed=8,
        options={
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 130, "vocab_size": 260, "max_position_embeddings": 512,
            "hidden_act": "swish", "tie_word_embeddings": True,
            "rope_parameters": {  # of as many positions as the longest context
                "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 8.0,
            },
        },
    ),
)  # fmt: skip

CASES = (
    *_LLAMA_LIKE,
    *(Case(name=name, architecture=one, seed=9 + number, options=options)
      for number, (name, (one, options)) in enumerate(FAMILIES.items())),
    *(Case(name=name, architecture=one, seed=60 + number, options=options)
      for number, (name, (one, options)) in enumerate(NEWER.items())),
)  # fmt: skip

#: Those whose models can have a layer that predicts further tokens, and what says that they do.
FURTHER = tuple(
    case for case in CASES
    if case.name in ("deepseek_v3", "glm4_moe", "qwen3_next", "qwen3_5_moe")
)  # fmt: skip
FURTHER_FIELDS: Mapping[str, Any] = {"num_nextn_predict_layers": 1, "mtp_num_hidden_layers": 1}
FURTHER_PATH = FOLDER / "further.npz"


def further_rows() -> list[tuple[int, int]]:
    """``(sequence, position)`` of every stored row of a further layer. The last of a sequence comes
    from the layer's own state before it."""
    rows = []
    for sequence, length in enumerate(PROMPT_LENGTHS):
        read = {position for position in STORED_PROMPT_ROWS if position < length - 2}
        rows += [(sequence, position) for position in sorted({*read, length - 2, length - 1})]
    return rows


def sequences(case: Case, vocab_size: int) -> list[list[int]]:
    """The tokens of each sequence: its prompt, then the new ones."""
    words = np.random.PCG64(1000 + case.seed).random_raw(
        sum(PROMPT_LENGTHS) + NEW_TOKENS * len(PROMPT_LENGTHS)
    )
    tokens = iter((words >> np.uint64(33)).tolist())
    return [
        [next(tokens) % vocab_size for _ in range(length + NEW_TOKENS)] for length in PROMPT_LENGTHS
    ]


def stored_rows() -> list[tuple[int, int]]:
    """``(sequence, position)`` of every stored row of logits."""
    rows = []
    for sequence, length in enumerate(PROMPT_LENGTHS):
        prompt = {position for position in STORED_PROMPT_ROWS if position < length}
        new = range(length, length + NEW_TOKENS)
        rows += [(sequence, position) for position in sorted({*prompt, length - 1, *new})]
    return rows


def digest(tensors: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Of all names, shapes and bytes: tells whether two runs had the same weights."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].shape}".encode())
        total.update(np.ascontiguousarray(tensors[name]).tobytes())
    return total.hexdigest()
