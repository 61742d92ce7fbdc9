"""A small Llama whose tensors are stored in all types of blocks, mixed as files mix them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from bandweave.models.registry import spec_from_config
from bandweave.models.spec import ModelSpec
from tests.helpers.gguf_blocks import random_blocks
from tests.helpers.gguf_models import Array, write_gguf
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import F32, random_tensors

#: Six blocks of 256 columns of the MLP, five of the heads, which are four together.
CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "num_hidden_layers": 3, "num_attention_heads": 20, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 1536, "vocab_size": 1300, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip

#: By the parts of names: of a Q4_K_M in the first layer; all other types in the others.
TYPES: Mapping[str, str] = {
    "token_embd": "Q8_0", "output.": "Q6_K",
    "blk.0.attn_q": "Q4_K", "blk.0.attn_k": "Q4_K", "blk.0.attn_v": "Q6_K",
    "blk.0.attn_output": "Q5_K", "blk.0.ffn_gate": "Q4_K", "blk.0.ffn_up": "Q4_K",
    "blk.0.ffn_down": "Q6_K",
    "blk.1.attn_q": "Q2_K", "blk.1.attn_k": "Q3_K", "blk.1.attn_v": "Q5_1",
    "blk.1.attn_output": "Q3_K", "blk.1.ffn_gate": "IQ4_XS", "blk.1.ffn_up": "Q4_0",
    "blk.1.ffn_down": "Q5_0",
    "blk.2.attn_q": "IQ4_NL", "blk.2.attn_k": "Q8_0", "blk.2.attn_v": "F16",
    "blk.2.attn_output": "Q4_1", "blk.2.ffn_gate": "MXFP4", "blk.2.ffn_up": "Q2_K",
    "blk.2.ffn_down": "IQ4_XS",
}  # fmt: skip
_SIZES = {"Q6_K": 4e-5, "Q3_K": 1e-3, "IQ4_XS": 2e-5, "IQ4_NL": 1e-3}  # of scales
_QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16")  # by the gguf package


def stored(name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType | None]:
    """A tensor in its type: quantised where that can be done here, else random blocks of about the
    same size."""
    kind = next((kind for part, kind in TYPES.items() if name.startswith(part)), None)
    if kind is None or "norm" in name:
        return values, None
    return encoded_as(kind, name, values)


def encoded_as(kind: str, name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType]:
    """A matrix, or a stack of them, in a type."""
    number = gguf.GGMLQuantizationType[kind]
    if kind in _QUANTISED:
        return gguf.quants.quantize(values, number), number
    rng = np.random.default_rng(sum(name.encode()))
    *lead, rows, columns = values.shape
    size = _SIZES.get(kind, 2e-4)
    blocks = random_blocks(rng, kind.lower(), math.prod(lead) * rows, columns, size)
    if kind == "MXFP4":
        blocks.reshape(len(blocks), -1, 17)[..., 0] = rng.integers(118, 122, 1)
    return blocks.reshape(*lead, rows, -1), number


def mixed_spec() -> ModelSpec:
    """Its spec, as a file gives it."""
    return dataclasses.replace(spec_from_config(CONFIG), column_block=256)


def write_mixed(path: Path, *, tied: bool = False) -> Path:
    """The file, with a head of its own or without."""
    config = {**CONFIG, "tie_word_embeddings": tied}
    spec = spec_from_config(config)
    return write_gguf(path, config, laid_out(spec, random_tensors(spec, 9)), encode=stored)
