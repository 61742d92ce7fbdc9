"""The byte layout that the kernels read, written plainly: panels of 16 outputs.

Knows the layout only; the kernels' own packers must give the same bytes.

Outputs are padded to a multiple of 16 with outputs that are zero. Panels follow each other; inside
a panel groups (or single inputs, for f32 and bf16) follow each other in ascending k:

======  =======================================================================================
q4,     288 bytes a group: 16 f16 scales; 4 vectors j of 64 bytes: byte 4 r + b holds, for output
nf4,    r, element 4 j + b of the group in its low and 16 + 4 j + b in its high nibble
ulaw4
mxfp4   272 bytes a group: 16 bytes, the scales' biased exponents (0: the scale is 0); then as q4
q8      544 bytes a group: 16 f16 scales; 8 vectors j of 64 bytes: byte 4 r + b is element
        4 j + b of output r, as the unsigned q + 128
GGUF's  blocks of 32 or 256 columns; see ``block_packing``
bf16    for each k 16 uint16
f32     for each k 16 float32
======  =======================================================================================

Everything is little-endian. Short groups are padded to 32 elements that mean 0.

Suffixes: N outputs, K inputs, G groups, Q panels, R = 16 outputs of a panel, J vectors of a group,
B = 4 bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.formats import bf16
from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.block_packing import PANEL, pack_blocks, unpack_blocks
from bandweave.formats.block_types import BLOCK_TYPES
from bandweave.formats.groups import GROUP, Groups
from bandweave.formats.integers import zero_of
from bandweave.formats.matrix import Matrix, PlainMatrix, QuantisedMatrix

Bytes = npt.NDArray[np.uint8]


def pack(matrix: Matrix) -> Bytes:
    """The bytes of a matrix, one-dimensional."""
    if isinstance(matrix, PlainMatrix):
        return _pack_plain(matrix)
    if isinstance(matrix, BlockMatrix):
        return pack_blocks(matrix)
    return _pack_q8(matrix) if matrix.format == "q8" else _pack_nibbles(matrix)


def unpack(data: Bytes, *, format: str, outputs: int, inputs: int, unit: int) -> Matrix:
    """The matrix whose ``pack`` is ``data``."""
    if format in ("f32", "bf16"):
        return _unpack_plain(data, format, outputs, inputs, unit)
    if format in BLOCK_TYPES:
        return unpack_blocks(data, format=format, outputs=outputs, inputs=inputs, unit=unit)
    groups = Groups(inputs=inputs, unit=unit)
    vectors = 8 if format == "q8" else 4
    scales = PANEL if format == "mxfp4" else 2 * PANEL  # bytes
    blocks_QGX = data.reshape(-1, groups.count, scales + 64 * vectors)
    scales_QGX = np.ascontiguousarray(blocks_QGX[:, :, :scales])
    bytes_QGJRB = blocks_QGX[:, :, scales:].reshape(-1, groups.count, vectors, PANEL, 4)
    bytes_QRGJB = bytes_QGJRB.transpose(0, 3, 1, 2, 4)
    if format != "q8":  # low nibbles are elements 0..15 of the group, high ones 16..31
        q_QRGJB = np.concatenate([bytes_QRGJB & 15, bytes_QRGJB >> 4], axis=3).astype(np.int8)
    else:
        q_QRGJB = (bytes_QRGJB.astype(np.int16) - 128).astype(np.int8)
    q_NG32 = q_QRGJB.reshape(-1, groups.count, GROUP)
    if format == "mxfp4":
        d_QGR = (scales_QGX.astype(np.uint32) << 23).view(np.float32)
    else:
        d_QGR = scales_QGX.view("<f2").astype(np.float16)
    d_NG = d_QGR.transpose(0, 2, 1).reshape(-1, groups.count)
    return QuantisedMatrix(
        format=format,
        q_NK=groups.unpad(q_NG32)[:outputs],
        d_NG=d_NG[:outputs],
        unit=unit,
    )


def _pack_nibbles(matrix: QuantisedMatrix) -> Bytes:
    zero = zero_of(matrix.format)
    q_QRG32 = _panels(matrix.groups.pad(matrix.q_NK, zero), zero).astype(np.uint8)
    low, high = q_QRG32[..., :16], q_QRG32[..., 16:]
    return _blocks(matrix, (low | high << 4).astype(np.uint8))


def _pack_q8(matrix: QuantisedMatrix) -> Bytes:
    q_QRG32 = _panels(matrix.groups.pad(matrix.q_NK), 0).astype(np.int16)
    return _blocks(matrix, (q_QRG32 + 128).astype(np.uint8))


def _blocks(matrix: QuantisedMatrix, bytes_QRGX: Bytes) -> Bytes:
    """Scales before vectors: byte 4 j + b of an output's group goes to vector j, byte 4 r + b."""
    d_QRG = _panels(matrix.d_NG, 0)
    panels, _, count = d_QRG.shape
    d_QGR = d_QRG.transpose(0, 2, 1)
    if matrix.format == "mxfp4":
        scales_QGX = (np.ascontiguousarray(d_QGR).view(np.uint32) >> 23).astype(np.uint8)
    else:
        scales_QGX = np.ascontiguousarray(d_QGR, dtype="<f2").view(np.uint8)
    bytes_QRGJB = bytes_QRGX.reshape(panels, PANEL, count, -1, 4)
    bytes_QGJRB = bytes_QRGJB.transpose(0, 2, 3, 1, 4)
    vectors_QGX = bytes_QGJRB.reshape(panels, count, -1)
    return np.concatenate([scales_QGX, vectors_QGX], axis=2).reshape(-1)


def _pack_plain(matrix: PlainMatrix) -> Bytes:
    stored_NK = matrix.w_NK if matrix.format == "f32" else bf16.to_bits(matrix.w_NK)
    dtype = "<f4" if matrix.format == "f32" else "<u2"
    stored_QKR = _panels(stored_NK, 0).transpose(0, 2, 1)
    return np.ascontiguousarray(stored_QKR, dtype=dtype).view(np.uint8).reshape(-1)


def _unpack_plain(data: Bytes, format: str, outputs: int, inputs: int, unit: int) -> PlainMatrix:
    stored_QKR = data.view("<f4" if format == "f32" else "<u2").reshape(-1, inputs, PANEL)
    stored_NK = stored_QKR.transpose(0, 2, 1).reshape(-1, inputs)[:outputs]
    if format == "f32":
        w_NK = stored_NK.astype(np.float32)
    else:
        w_NK = bf16.from_bits(stored_NK.astype(np.uint16))
    return PlainMatrix(format=format, w_NK=w_NK, unit=unit)


def _panels(values_NX: npt.NDArray[np.generic], fill: int) -> npt.NDArray[np.generic]:
    """``[Q, 16, ...]``: outputs in panels, the last one completed with ``fill``."""
    missing = -len(values_NX) % PANEL
    padding = np.full((missing, *values_NX.shape[1:]), fill, dtype=values_NX.dtype)
    return np.concatenate([values_NX, padding]).reshape(-1, PANEL, *values_NX.shape[1:])
