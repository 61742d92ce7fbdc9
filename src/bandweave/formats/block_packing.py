"""Panels of the formats that keep GGUF's blocks, written plainly: 16 outputs' blocks side by side.

A block of a panel, of 32 columns or, in super-blocks, of 256:

- 16 float16 ``d``; where the type has minima, 16 float16 ``m``;
- in super-blocks the integer scales, 16 bytes for each group of ``sub`` columns; then the integer
  minima likewise. q2_k has both in one byte, the minimum above;
- the codes of each group of 32 columns in lines of 64 bytes, whose bytes 4 r to 4 r + 3 are output
  r's. Byte 4 r + b of a group's

  =============  ==================================================================================
  4 lines j      of nibbles (4 bits and more): element 4 j + b in the low half, 16 + 4 j + b in the
                 high one
  2 lines p      of pairs of bits (2, 3 and 6 bits): from the lowest bits on those of elements
                 8 p + b, 16 + 8 p + b, 8 p + 4 + b, 20 + 8 p + b
  1 line         of single bits (3 and 5 bits): bit 2 j is that of element 4 j + b, bit 2 j + 1 that
                 of element 16 + 4 j + b
  =============  ==================================================================================

  a code's lowest bits being in the first of these kinds of lines that the type has.

Everything is little-endian. Outputs that complete the last panel are zeros.

Suffixes: N outputs, K inputs, B blocks, S integer scales of a matrix's row, Q panels, R = 16
outputs of a panel, X bytes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.block_types import BLOCK_TYPES, NIBBLES, BlockType, check_unit
from bandweave.formats.groups import GROUP
from bandweave.formats.k_quants import bits

PANEL = 16  # outputs

Bytes = npt.NDArray[np.uint8]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def pack_blocks(matrix: BlockMatrix) -> Bytes:
    """The bytes of a matrix, one-dimensional."""
    kind = matrix.type
    blocks = matrix.q_NK.shape[1] // kind.columns
    parts_QBX = [_side_by_side(matrix.d_NB, blocks)]
    if matrix.m_NB is not None:
        parts_QBX.append(_side_by_side(matrix.m_NB, blocks))
    if matrix.s_NS is not None:
        scales_NS, minima_NS = matrix.s_NS.view(np.uint8), matrix.mins_NS
        if kind.scales == NIBBLES:
            assert minima_NS is not None
            scales_NS, minima_NS = scales_NS | minima_NS << 4, None
        parts_QBX.append(_side_by_side(scales_NS, blocks))
        if minima_NS is not None:
            parts_QBX.append(_side_by_side(minima_NS, blocks))
    parts_QBX.append(_lines(matrix, blocks))
    return np.concatenate(parts_QBX, axis=2).reshape(-1)


def unpack_blocks(data: Bytes, *, format: str, outputs: int, inputs: int, unit: int) -> BlockMatrix:
    """The matrix whose ``pack_blocks`` is ``data``."""
    check_unit(format, inputs, unit)
    kind = BLOCK_TYPES[format]
    blocks = inputs // kind.columns
    rest_QBX = data.reshape(-(-outputs // PANEL), blocks, -1)

    def take(each: int, dtype: str) -> npt.NDArray[Any]:
        """The next ``each`` numbers of every output's block, ``[outputs, blocks * each]``."""
        nonlocal rest_QBX
        size = PANEL * each * np.dtype(dtype).itemsize
        taken_QBX, rest_QBX = rest_QBX[..., :size], rest_QBX[..., size:]
        taken_QBSR = np.ascontiguousarray(taken_QBX).view(dtype).reshape(-1, blocks, each, PANEL)
        taken_NS = taken_QBSR.transpose(0, 3, 1, 2).reshape(-1, blocks * each)[:outputs]
        return np.ascontiguousarray(taken_NS)

    d_NB = take(1, "<f2").astype(np.float16)
    m_NB = take(1, "<f2").astype(np.float16) if kind.minima else None
    s_NS = mins_NS = None
    if kind.subs:
        s_NS = take(kind.subs, "u1")
        if kind.scales == NIBBLES:
            s_NS, mins_NS = bits(s_NS, 0, 4), bits(s_NS, 4, 4)
        elif kind.minima:
            mins_NS = take(kind.subs, "u1")
        s_NS = s_NS.view(np.int8)
    q_NK = _codes(rest_QBX, kind)[:outputs]
    return BlockMatrix(
        format=format, q_NK=q_NK, d_NB=d_NB, m_NB=m_NB, s_NS=s_NS, mins_NS=mins_NS, unit=unit
    )


def _panels(values_NX: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """``[Q, 16, X]``; the outputs that the last panel lacks are zeros."""
    missing = -len(values_NX) % PANEL
    return np.pad(values_NX, ((0, missing), (0, 0))).reshape(-1, PANEL, values_NX.shape[1])


def _side_by_side(values_NS: npt.NDArray[np.generic], blocks: int) -> Bytes:
    """Each block's numbers, those of 16 outputs together, as bytes ``[Q, B, X]``."""
    values_QRS = _panels(values_NS)
    panels, _, count = values_QRS.shape
    values_QSR = np.ascontiguousarray(values_QRS.transpose(0, 2, 1))
    if values_QSR.dtype == np.float16:
        values_QSR = values_QSR.astype("<f2")
    return values_QSR.view(np.uint8).reshape(panels, blocks, -1) if count else np.empty(0, np.uint8)


# In the arrays below a group's elements are [h, j, b]: 16 h + 4 j + b.


def _lines(matrix: BlockMatrix, blocks: int) -> Bytes:
    count = matrix.type.bits
    codes_QRK = _panels(matrix.q_NK)
    panels = len(codes_QRK)
    codes_QRGhjb = codes_QRK.reshape(panels, PANEL, -1, 2, 4, 4)
    low, left = codes_QRGhjb[:, :, :, 0], codes_QRGhjb[:, :, :, 1]  # [Q, R, G, j, b]
    lines = []
    at = 0
    if count >= 4:
        lines.append(low & 15 | (left & 15) << 4)
        at = 4
    if count in (2, 3, 6):
        a, b = low >> at & 3, left >> at & 3
        even, odd = a[..., 0::2, :] | b[..., 0::2, :] << 2, a[..., 1::2, :] | b[..., 1::2, :] << 2
        lines.append(even | odd << 4)
        at += 2
    if at < count:
        one = np.zeros_like(low[..., :1, :])
        for j in range(4):
            for half, source in enumerate((low, left)):
                one |= (source[..., j : j + 1, :] >> at & 1) << (2 * j + half)
        lines.append(one)
    lines_QRGLb = np.concatenate(lines, axis=3)
    return np.ascontiguousarray(lines_QRGLb.transpose(0, 2, 3, 1, 4)).reshape(panels, blocks, -1)


def _codes(lines_QBX: Bytes, kind: BlockType) -> Bytes:
    groups = lines_QBX.shape[1] * kind.columns // GROUP
    lines_QGLRb = lines_QBX.reshape(len(lines_QBX), groups, -1, PANEL, 4)
    lines_QRGLb = lines_QGLRb.transpose(0, 3, 1, 2, 4)
    shape = (*lines_QRGLb.shape[:3], 2, 4, 4)
    codes_QRGhjb = np.zeros(shape, np.uint8)
    line = at = 0
    for j in range(4):
        for h in range(2):
            line = at = 0
            if kind.bits >= 4:
                codes_QRGhjb[..., h, j, :] = lines_QRGLb[..., j, :] >> 4 * h & 15
                line, at = 4, 4
            if kind.bits in (2, 3, 6):
                pair = lines_QRGLb[..., line + j // 2, :] >> 4 * (j % 2) + 2 * h & 3
                codes_QRGhjb[..., h, j, :] |= pair << at
                line, at = line + 2, at + 2
            if at < kind.bits:
                codes_QRGhjb[..., h, j, :] |= (lines_QRGLb[..., line, :] >> 2 * j + h & 1) << at
    return codes_QRGhjb.reshape(-1, groups * GROUP)
