"""Tiny checkpoints in the formats that people have: random codes, the tensors that hold them, and
the values that they stand for, by the definitions of the formats and one number at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.safetensors import encode_header
from bandweave.models.registry import build_graph, hugging_face_name, spec_from_config

F32 = npt.NDArray[np.float32]
Tensor = tuple[str, npt.NDArray[Any]]  # the dtype's name, and what holds its bytes

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


@dataclass(kw_only=True)
class Encoded:
    """Stored tensors by name, and the values of the matrix, or of the stack of matrices."""

    tensors: dict[str, Tensor]
    values: F32


def bf16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Bits of values that bf16 holds."""
    bits = values.astype(np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def e4m3(code: int) -> float:
    sign, exponent, mantissa = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    if exponent == 0:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def scale_tensor(values: npt.NDArray[Any], dtype: str) -> Tensor:
    """Powers of two may be of any dtype."""
    if dtype in ("F8_E8M0", "U8"):
        return dtype, (np.log2(values).round() + 127).astype(np.uint8)
    if dtype == "BF16":
        return dtype, bf16(values)
    return dtype, values.astype({"F32": np.float32, "F16": np.float16}[dtype])


def random_scales(
    rng: np.random.Generator, shape: tuple[int, ...], size: float, dtype: str
) -> npt.NDArray[np.float32]:
    """Of about ``size``, as exact in their dtype."""
    scales = size * rng.uniform(0.5, 1.5, shape)
    if dtype in ("F8_E8M0", "U8"):
        return np.exp2(np.log2(scales).round()).astype(np.float32)
    if dtype == "BF16":
        bits = scales.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)
    return scales.astype({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


def fp8(
    rng: np.random.Generator,
    name: str,
    shape: tuple[int, ...],
    *,
    block: tuple[int, int] | None = (128, 128),
    one: tuple[int, ...] | None = None,
    dtype: str = "F32",
    suffix: str = "_scale_inv",
) -> Encoded:
    """``block`` None: one scale a row. ``one``: one a matrix, in a tensor of that shape."""
    *lead, rows, columns = shape
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    codes[codes & 0x7F == 0x7F] = 0x38
    down, across = block or (1, columns)
    grid = (*lead, math.ceil(rows / down), math.ceil(columns / across))
    if one is not None:
        down, across, grid = rows, columns, (*lead, 1, 1)
    scales = random_scales(rng, grid, 1 / (100 * math.sqrt(columns)), dtype)
    values = np.empty(shape, np.float32)
    table = np.array([e4m3(code) for code in range(256)], np.float32)
    for place in np.ndindex(*shape):
        *entry, row, column = place
        scale = scales[(*entry, row // down, column // across)]
        values[place] = table[codes[place]] * scale
    stored = scales if one is None else scales.reshape(one)
    tensors = {name: ("F8_E4M3", codes), name + suffix: scale_tensor(stored, dtype)}
    return Encoded(tensors=tensors, values=values)


def mxfp4(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Encoded:
    *lead, rows, columns = shape
    codes = rng.integers(0, 16, (*lead, rows, columns // 32, 32))
    exponents = rng.integers(121, 125, (*lead, rows, columns // 32), dtype=np.uint8)
    blocks = np.zeros((*lead, rows, columns // 32, 16), np.uint8)
    values = np.empty(codes.shape, np.float32)
    for place in np.ndindex(*codes.shape):
        code, at = int(codes[place]), place[-1]
        blocks[(*place[:-1], at // 2)] |= code << (4 if at % 2 else 0)
        sign = -1.0 if code & 8 else 1.0
        values[place] = sign * E2M1[code & 7] * 2.0 ** (int(exponents[place[:-1]]) - 127)
    tensors = {name + "_blocks": ("U8", blocks), name + "_scales": ("U8", exponents)}
    return Encoded(tensors=tensors, values=values.reshape(shape))


def words(codes: npt.NDArray[Any], bits: int, axis: int, order: list[int] | None = None) -> Tensor:
    """Codes along an axis in words of 32 bits, from the lowest bits on in ``order``."""
    moved = np.moveaxis(codes, axis, 0)
    each = 32 // bits
    result = np.zeros((math.ceil(len(moved) / each), *moved.shape[1:]), np.uint32)
    for index in range(len(moved)):
        place = (order or list(range(each))).index(index % each)
        result[index // each] |= moved[index].astype(np.uint32) << np.uint32(bits * place)
    return "I32", np.ascontiguousarray(np.moveaxis(result, 0, axis)).view(np.int32)


def packed(
    rng: np.random.Generator,
    name: str,
    shape: tuple[int, int],
    *,
    bits: int = 4,
    group: int = 32,
    zeros: bool = False,
    shuffled: bool = False,
    dtype: str = "BF16",
) -> Encoded:
    rows, columns = shape
    half, groups = 1 << (bits - 1), columns // group
    integers = rng.integers(-half, half, shape)
    points = rng.integers(-half, half, (rows, groups)) if zeros else np.zeros((rows, groups), int)
    scales = random_scales(rng, (rows, groups), 2 / (half * math.sqrt(columns)), dtype)
    group_of = np.arange(columns) // group
    tensors: dict[str, Tensor] = {
        name + "_packed": words(integers + half, bits, 1),
        name + "_scale": scale_tensor(scales, dtype),
        name + "_shape": ("I64", np.array(shape, np.int64)),
    }
    if zeros:
        tensors[name + "_zero_point"] = words(points + half, bits, 0)
    if shuffled:
        group_of = rng.permutation(group_of)
        tensors[name + "_g_idx"] = ("I32", group_of.astype(np.int32))
    values = np.empty(shape, np.float32)
    for row, column in np.ndindex(*shape):
        at = row, group_of[column]
        values[row, column] = np.float32(integers[row, column] - points[at]) * scales[at]
    return Encoded(tensors=tensors, values=values)


def awq(rng: np.random.Generator, name: str, shape: tuple[int, int], *, group: int = 32) -> Encoded:
    outputs, inputs = shape
    group = inputs if group == -1 else group
    codes = rng.integers(0, 16, (inputs, outputs))
    zeros = rng.integers(0, 16, (inputs // group, outputs))
    scales = random_scales(rng, zeros.shape, 0.25 / math.sqrt(inputs), "F16")
    values = np.empty(shape, np.float32)
    for row, column in np.ndindex(*shape):
        at = column // group, row
        values[row, column] = np.float32(codes[column, row] - zeros[at]) * scales[at]
    module = name.removesuffix("weight")
    tensors = {
        module + "qweight": words(codes, 4, 1, AWQ_ORDER),
        module + "qzeros": words(zeros, 4, 1, AWQ_ORDER),
        module + "scales": scale_tensor(scales, "F16"),
    }
    return Encoded(tensors=tensors, values=values)


def gptq(
    rng: np.random.Generator,
    name: str,
    shape: tuple[int, int],
    *,
    bits: int = 4,
    group: int = 32,
    less: int = 1,
    shuffled: bool = False,
) -> Encoded:
    outputs, inputs = shape
    group = inputs if group == -1 else group
    most = 1 << bits
    codes = rng.integers(0, most, (inputs, outputs))
    zeros = rng.integers(0, most, (inputs // group, outputs))
    scales = random_scales(rng, zeros.shape, 4 / (most * math.sqrt(inputs)), "F16")
    group_of = np.arange(inputs) // group
    group_of = rng.permutation(group_of) if shuffled else group_of
    values = np.empty(shape, np.float32)
    for row, column in np.ndindex(*shape):
        at = group_of[column], row
        values[row, column] = np.float32(codes[column, row] - zeros[at]) * scales[at]
    module = name.removesuffix("weight")
    tensors = {
        module + "qweight": words(codes, bits, 0),
        module + "qzeros": words((zeros - less) % most, bits, 1),
        module + "scales": scale_tensor(scales, "F16"),
        module + "g_idx": ("I32", group_of.astype(np.int32)),
    }
    return Encoded(tensors=tensors, values=values)


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file."""
    entries = [(name, dtype, array.shape) for name, (dtype, array) in tensors.items()]
    data = b"".join(array.tobytes() for _, array in tensors.values())
    path.write_bytes(encode_header(entries) + data)


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
