"""The files: one small Llama for each type of blocks, whose bits come from seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf

from bandweave.models.registry import spec_from_config
from tests.helpers.gguf_mixed import encoded_as
from tests.helpers.gguf_models import Array, write_gguf
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import F32, random_tensors

KINDS = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip
PROMPT = (3, 250, 17, 99, 128, 5, 301, 64, 2, 77, 400, 33)
CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 512, "vocab_size": 512, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


def write_case(path: Path, kind: str) -> Path:
    """The file of a type: all matrices are stored in it."""
    spec = spec_from_config(CONFIG)
    tensors = laid_out(spec, random_tensors(spec, 21))
    fields = {"tokenizer.ggml.model": "no_vocab"}
    return write_gguf(path, CONFIG, tensors, encode=partial(_encode, kind), fields=fields)


def _encode(kind: str, name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType | None]:
    if kind == "F32" or "norm" in name or values.ndim < 2:
        return values, None
    return encoded_as(kind, name, values)
