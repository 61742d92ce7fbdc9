"""Tiny Llamas in every stored format, with the values that they stand for."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bandweave.models.registry import build_graph, hugging_face_name, spec_from_config
from tests.helpers.stored_formats import (
    F32,
    Encoded,
    Tensor,
    awq,
    bf16,
    fp8,
    gptq,
    mxfp4,
    packed,
    random_scales,
    write_tensors,
)

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


@dataclass(kw_only=True)
class Format:
    """A format: how to encode a matrix by its stored name, and what config.json says of it."""

    encode: Callable[..., Encoded]
    config: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


def _compressed(layout: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


def _gptq(**fields: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, **fields}


_FP8 = {"quant_method": "fp8", "fmt": "e4m3"}
_CHANNEL = _compressed("float-quantized", type="float", num_bits=8, strategy="channel")
_INT4 = _compressed("pack-quantized", type="int", num_bits=4, strategy="group", group_size=32)

FORMATS: Mapping[str, Format] = {
    "fp8 blocks": Format(
        encode=fp8, config={**_FP8, "weight_block_size": [48, 40]}, options={"block": (48, 40)}
    ),
    "fp8 exponents": Format(
        encode=fp8, config=_FP8, options={"block": (128, 128), "dtype": "F8_E8M0"}
    ),
    "fp8 bf16 scales": Format(encode=fp8, config=_FP8, options={"dtype": "BF16"}),
    "fp8 one scale": Format(
        encode=fp8, config={**_FP8, "weight_block_size": None},
        options={"one": ()},
    ),
    "fp8 rows": Format(
        encode=fp8, config=_CHANNEL, options={"block": None, "suffix": "_scale", "dtype": "BF16"}
    ),
    "mxfp4": Format(encode=mxfp4, config={"quant_method": "mxfp4"}),
    "int4": Format(encode=packed, config=_INT4),
    "int4 zeros": Format(encode=packed, config=_INT4, options={"zeros": True, "dtype": "F16"}),
    "int4 order": Format(encode=packed, config=_INT4, options={"shuffled": True, "zeros": True}),
    "int8": Format(
        encode=packed, config=_compressed("pack-quantized", type="int", num_bits=8, group_size=16),
        options={"bits": 8, "group": 16, "dtype": "F32"},
    ),
    "awq": Format(
        encode=awq, config={"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"}
    ),
    "awq columns": Format(
        encode=awq, config={"quant_method": "awq", "bits": 4, "group_size": -1},
        options={"group": -1},
    ),
    "gptq": Format(encode=gptq, config=_gptq()),
    "gptq order": Format(
        encode=gptq, config=_gptq(desc_act=True, checkpoint_format="gptq"),
        options={"shuffled": True},
    ),
    "gptq v2": Format(
        encode=gptq, config=_gptq(checkpoint_format="gptq_v2", group_size=-1),
        options={"less": 0, "group": -1},
    ),
    "gptq 8": Format(encode=gptq, config=_gptq(bits=8), options={"bits": 8}),
}  # fmt: skip


def write_model(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """A folder of one weight file."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    write_tensors(path / "model.safetensors", tensors)
    return path


def encode_model(
    config: Mapping[str, Any], form: Format, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, F32]]:
    """Random weights whose products are stored in a format, all else as bf16 or f32; and all the
    values, by stored names of plain weights."""
    spec = spec_from_config(config)
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    values: dict[str, F32] = {}
    for weight in build_graph(spec).weights():
        name = hugging_face_name(spec.family, weight.name)
        if len(weight.shape) == 2 and weight.name not in ("embed_tokens", "lm_head"):
            one = form.encode(rng, name, weight.shape, **form.options)
            tensors.update(one.tensors)
            values[name] = one.values
        elif len(weight.shape) == 2:
            values[name] = random_scales(rng, weight.shape, 1.0, "BF16") - np.float32(1)
            values[name] = (values[name].view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            tensors[name] = "BF16", bf16(values[name])
        else:
            values[name] = rng.uniform(0.9, 1.1, weight.shape).astype(np.float32)
            tensors[name] = "F32", values[name]
    return tensors, values


@functools.cache
def encoded(name: str) -> tuple[Mapping[str, Tensor], Mapping[str, F32]]:
    """``encode_model`` of a format."""
    return encode_model(CONFIG, FORMATS[name])
