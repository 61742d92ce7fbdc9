"""Encoders of the formats that checkpoints have: random codes, the tensors that hold them, and the
values that they stand for, by the definitions of the formats and one number at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.safetensors import encode_header

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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file."""
    entries = [(name, dtype, array.shape) for name, (dtype, array) in tensors.items()]
    data = b"".join(array.tobytes() for _, array in tensors.values())
    path.write_bytes(encode_header(entries) + data)
