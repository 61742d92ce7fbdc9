"""GGUF's super-blocks of 256 weights, taken apart. Layouts after ggml's ``ggml-quants.c``.

Suffixes: N rows, B blocks, X bytes of a block, C codes of a block, S integer scales of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What blocks are made of; see ``BlockMatrix``."""

    codes_NBC: Bytes
    d_NB: Halves
    m_NB: Halves | None = None
    s_NBS: npt.NDArray[np.int8] | None = None
    mins_NBS: Bytes | None = None


def half(x_NBX: Bytes, at: int) -> Halves:
    """The float16 at a byte of each block."""
    return np.ascontiguousarray(x_NBX[..., at : at + 2]).view("<f2")[..., 0].astype(np.float16)


def nibbles(x_NBX: Bytes) -> Bytes:
    """The low halves of some bytes, then their high halves."""
    return np.concatenate([bits(x_NBX, 0, 4), bits(x_NBX, 4, 4)], axis=-1)


def bits(x_NBX: Bytes, first: int, count: int) -> Bytes:
    """Some bits of every byte, as a number."""
    return (x_NBX >> first & (1 << count) - 1).astype(np.uint8)


def joined(low_NBX: Bytes, high_NBX: Bytes, at: int) -> Bytes:
    """``high_NBX`` put before the lowest ``at`` bits."""
    return (low_NBX | high_NBX << at).astype(np.uint8)


def q2_k(x: Bytes) -> Parts:
    """16 bytes of scales and minima, 64 of codes, d, dmin."""
    return Parts(
        codes_NBC=_pairs(x[..., 16:80]),
        d_NB=half(x, 80),
        m_NB=half(x, 82),
        s_NBS=bits(x[..., :16], 0, 4).view(np.int8),
        mins_NBS=bits(x[..., :16], 4, 4),
    )


def q3_k(x: Bytes) -> Parts:
    """32 bytes of third bits, 64 of codes, 12 of scales, d."""
    # Bit i of byte j belongs to element 32 i + j.
    third_NBC = np.concatenate([bits(x[..., :32], i, 1) for i in range(8)], axis=-1)
    packed = x[..., 96:108]
    low_NBS = nibbles(packed[..., :8])
    high_NBS = np.concatenate([bits(packed[..., 8:], 2 * i, 2) for i in range(4)], axis=-1)
    s_NBS = joined(low_NBS, high_NBS, 4).view(np.int8) - np.int8(32)
    codes_NBC = joined(_pairs(x[..., 32:96]), third_NBC, 2)
    return Parts(codes_NBC=codes_NBC, d_NB=half(x, 108), s_NBS=s_NBS)


def q4_k(x: Bytes) -> Parts:
    """d, dmin, 12 bytes of scales and minima, 128 of codes."""
    s_NBS, mins_NBS = _six_bits(x[..., 4:16])
    return Parts(
        codes_NBC=_nibbles_of_64(x[..., 16:]), d_NB=half(x, 0), m_NB=half(x, 2),
        s_NBS=s_NBS.view(np.int8), mins_NBS=mins_NBS,
    )  # fmt: skip


def q5_k(x: Bytes) -> Parts:
    """As q4_k, with 32 bytes of fifth bits before the codes."""
    s_NBS, mins_NBS = _six_bits(x[..., 4:16])
    fifth_NBC = np.concatenate([bits(x[..., 16:48], i, 1) for i in range(8)], axis=-1)
    return Parts(
        codes_NBC=joined(_nibbles_of_64(x[..., 48:]), fifth_NBC, 4), d_NB=half(x, 0),
        m_NB=half(x, 2),
        s_NBS=s_NBS.view(np.int8), mins_NBS=mins_NBS,
    )  # fmt: skip


def q6_k(x: Bytes) -> Parts:
    """128 bytes of nibbles, 64 of the bits above them, 16 scales, d."""
    parts = []
    for i in range(2):  # 128 elements each
        low = nibbles(x[..., 64 * i : 64 * i + 64])
        high = x[..., 128 + 32 * i : 160 + 32 * i]
        parts.append(joined(low, np.concatenate([bits(high, 2 * j, 2) for j in range(4)], -1), 4))
    s_NBS = np.ascontiguousarray(x[..., 192:208]).view(np.int8)
    return Parts(codes_NBC=np.concatenate(parts, axis=-1), d_NB=half(x, 208), s_NBS=s_NBS)


def iq4_xs(x: Bytes) -> Parts:
    """d, 16 bits of high scale bits, 4 bytes of low ones, 128 of codes."""
    high = np.ascontiguousarray(x[..., 2:4]).view("<u2")
    high_NBS = (high >> np.arange(0, 16, 2, dtype=np.uint16) & 3).astype(np.uint8)
    low_NBS = np.stack([bits(x[..., 4:8], 0, 4), bits(x[..., 4:8], 4, 4)], axis=-1).reshape(
        high_NBS.shape
    )
    codes = [nibbles(x[..., 8 + 16 * i : 24 + 16 * i]) for i in range(8)]
    return Parts(
        codes_NBC=np.concatenate(codes, axis=-1),
        d_NB=half(x, 0),
        s_NBS=joined(low_NBS, high_NBS, 4).view(np.int8) - np.int8(32),
    )


def _pairs(x_NBX: Bytes) -> Bytes:
    """Two bits each: of either half's 32 bytes first the lowest ones."""
    return np.concatenate(
        [bits(x_NBX[..., 32 * i : 32 * i + 32], 2 * j, 2) for i in range(2) for j in range(4)], -1
    )


def _nibbles_of_64(x_NBX: Bytes) -> Bytes:
    return np.concatenate([nibbles(x_NBX[..., 32 * i : 32 * i + 32]) for i in range(4)], axis=-1)


def _six_bits(x_NBX: Bytes) -> tuple[Bytes, Bytes]:
    """8 scales and 8 minima in 12 bytes: the last four of each have their upper two bits above
    those of the first four."""
    first, second, third = x_NBX[..., :4], x_NBX[..., 4:8], x_NBX[..., 8:]
    more = [joined(bits(third, 4 * i, 4), bits(x, 6, 2), 4) for i, x in enumerate((first, second))]
    scales = np.concatenate([bits(first, 0, 6), more[0]], axis=-1)
    minima = np.concatenate([bits(second, 0, 6), more[1]], axis=-1)
    return scales, minima
