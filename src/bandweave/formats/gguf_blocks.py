"""GGUF's blocks as they lie in a file, taken apart: the oracle of the native packer.

Layouts after ggml's ``ggml-common.h`` and ``ggml-quants.c``; those of super-blocks are in
``k_quants``. Knows bytes; knows no files and no panels.

Suffixes: N rows, B blocks, X bytes of a block, C codes of a block, K columns, S integer scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.formats import block_matrix, k_quants, mxfp4, q4
from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.block_types import BLOCK_TYPES
from bandweave.formats.k_quants import Parts, half, joined, nibbles
from bandweave.formats.matrix import QuantisedMatrix
from bandweave.formats.stored import SMALLEST

Bytes = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

#: Bytes of a block of 32 weights of the types that run in formats that are not GGUF's alone, and
#: the format that runs each as it is stored.
_SHARED: Mapping[str, tuple[int, str]] = {
    "q4_0": (18, "q4"),
    "q8_0": (34, "q8"),
    "mxfp4": (17, "mxfp4"),
}

#: The stored types by name: the weight format that runs each as it is stored.
RUNS_AS: Mapping[str, str] = {
    **{name: format for name, (_, format) in _SHARED.items()},
    **{name: name for name in BLOCK_TYPES},
}


def block_size(source: str) -> tuple[int, int]:
    """Columns and bytes of a block of a stored type; ``ValueError`` for another name."""
    if source in _SHARED:
        return 32, _SHARED[source][0]
    if source in BLOCK_TYPES:
        return BLOCK_TYPES[source].columns, BLOCK_TYPES[source].stored_bytes
    raise ValueError(f"stored type {source!r} is not known; known are {', '.join(RUNS_AS)}")


def is_as_stored(source: str, weight_format: str, unit: int) -> bool:
    """Whether a matrix in the format, with units of so many columns, keeps what is stored as a
    dtype as it is: False for dtypes that are no blocks."""
    return RUNS_AS.get(source) == weight_format and unit % block_size(source)[0] == 0


def as_stored(source: str, bytes_NX: Bytes, unit: int) -> BlockMatrix | QuantisedMatrix:
    """The matrix whose rows are these bytes, in the format of ``RUNS_AS``: the very codes and
    scales. ``unit`` must hold whole blocks. ``ValueError`` where a scale is not finite."""
    blocks_NBX = _blocks(source, bytes_NX)
    if source == "mxfp4":
        return _mxfp4(blocks_NBX, unit)
    parts = _PARTS[source](blocks_NBX)
    rows, columns = len(blocks_NBX), parts.codes_NBC.shape[1] * parts.codes_NBC.shape[2]
    for halves_NB in (parts.d_NB, parts.m_NB):
        if halves_NB is not None and not np.isfinite(halves_NB).all():
            raise ValueError("a scale is a NaN or an infinity")
    codes_NK = parts.codes_NBC.reshape(rows, columns)
    if source in _SHARED:
        return QuantisedMatrix(
            format=RUNS_AS[source], q_NK=codes_NK.view(np.int8), d_NG=parts.d_NB, unit=unit
        )
    return _block_matrix(source, parts, unit)


def widen_blocks(source: str, bytes_NX: Bytes) -> F32:
    """The weights' values as float32, ``[rows, columns]``, by ggml's formulas; what is not finite
    stays so."""
    blocks_NBX = _blocks(source, bytes_NX)
    rows, columns = len(blocks_NBX), blocks_NBX.shape[1] * block_size(source)[0]
    if source == "mxfp4":
        d_NB, codes_NBC = _mxfp4_parts(blocks_NBX)
        book = np.array(mxfp4.BOOK.values, np.float32)
        with np.errstate(over="ignore", under="ignore"):
            wide_NBC = (d_NB[:, :, None] * book[codes_NBC]).astype(np.float32)
        return wide_NBC.reshape(rows, columns)
    parts = _PARTS[source](blocks_NBX)
    if source in _SHARED:
        zero = q4.ZERO if source == "q4_0" else 0
        q_NBC = parts.codes_NBC.view(np.int8).astype(np.float32) - np.float32(zero)
        with np.errstate(invalid="ignore"):
            w_NBC = np.multiply(parts.d_NB.astype(np.float32)[:, :, None], q_NBC, dtype=np.float32)
        return w_NBC.reshape(rows, columns)
    return block_matrix.dequantise(_block_matrix(source, parts, BLOCK_TYPES[source].columns))


def _blocks(source: str, bytes_NX: Bytes) -> Bytes:
    _, size = block_size(source)
    if bytes_NX.dtype != np.uint8 or bytes_NX.ndim != 2 or bytes_NX.shape[1] % size:
        raise ValueError(f"rows of {source} are uint8, of whole blocks of {size} bytes")
    return np.ascontiguousarray(bytes_NX).reshape(len(bytes_NX), -1, size)


def _block_matrix(source: str, parts: Parts, unit: int) -> BlockMatrix:
    rows = len(parts.d_NB)

    def flat(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        return None if values is None else np.ascontiguousarray(values).reshape(rows, -1)

    codes_NK = parts.codes_NBC.reshape(rows, -1)
    return BlockMatrix(
        format=source, q_NK=codes_NK, d_NB=parts.d_NB, m_NB=parts.m_NB, unit=unit,
        s_NS=flat(parts.s_NBS), mins_NS=flat(parts.mins_NBS),
    )  # fmt: skip


# --- blocks of 32 ---


def _high_bits(words_NBX: Bytes) -> Bytes:
    """The bits of a uint32, ``[N, B, 32]``, from the lowest one on."""
    return np.unpackbits(words_NBX, axis=-1, bitorder="little")


def _q4_0(x: Bytes) -> Parts:
    return Parts(codes_NBC=nibbles(x[..., 2:]), d_NB=half(x, 0))


def _q4_1(x: Bytes) -> Parts:
    return Parts(codes_NBC=nibbles(x[..., 4:]), d_NB=half(x, 0), m_NB=half(x, 2))


def _q5_0(x: Bytes) -> Parts:
    return Parts(codes_NBC=joined(nibbles(x[..., 6:]), _high_bits(x[..., 2:6]), 4), d_NB=half(x, 0))


def _q5_1(x: Bytes) -> Parts:
    codes_NBC = joined(nibbles(x[..., 8:]), _high_bits(x[..., 4:8]), 4)
    return Parts(codes_NBC=codes_NBC, d_NB=half(x, 0), m_NB=half(x, 2))


def _q8_0(x: Bytes) -> Parts:
    return Parts(codes_NBC=np.ascontiguousarray(x[..., 2:]), d_NB=half(x, 0))


def _mxfp4_parts(blocks_NBX: Bytes) -> tuple[npt.NDArray[np.float64], Bytes]:
    """Powers of two as float64, and codes."""
    d_NB = np.ldexp(1.0, blocks_NBX[..., 0].astype(np.int32) - 128)
    return d_NB, nibbles(blocks_NBX[..., 1:])


def _mxfp4(blocks_NBX: Bytes, unit: int) -> QuantisedMatrix:
    """Weights below 2^-40 are zeros, as they are everywhere: they get the code of 0, and a block
    of nothing else the scale 0."""
    d_NB, codes_NBC = _mxfp4_parts(blocks_NBX)
    book = np.array(mxfp4.BOOK.values, np.float64)
    size_NBC = np.abs(d_NB[:, :, None] * book[codes_NBC])
    if (size_NBC > np.finfo(np.float32).max).any():
        raise ValueError("a weight is beyond float32")
    small_NBC = size_NBC < SMALLEST
    codes_NBC = np.where(small_NBC & (book[codes_NBC] != 0), mxfp4.BOOK.zero, codes_NBC)
    empty_NB = small_NBC.all(axis=2)
    codes_NBC[empty_NB] = mxfp4.BOOK.zero
    return QuantisedMatrix(
        format="mxfp4",
        q_NK=codes_NBC.astype(np.int8).reshape(len(blocks_NBX), -1),
        d_NG=np.where(empty_NB, 0.0, d_NB).astype(np.float32),
        unit=unit,
    )


_PARTS: Mapping[str, Callable[[Bytes], Parts]] = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "iq4_nl": _q4_0,
    "q2_k": k_quants.q2_k,
    "q3_k": k_quants.q3_k,
    "q4_k": k_quants.q4_k,
    "q5_k": k_quants.q5_k,
    "q6_k": k_quants.q6_k,
    "iq4_xs": k_quants.iq4_xs,
}
