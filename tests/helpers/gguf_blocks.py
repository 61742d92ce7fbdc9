"""Random blocks as GGUF files hold them, and products with them by either executor.

Suffixes: N outputs, X bytes of a row, T rows, K inputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.native import native_executor
from bandweave.formats.gguf_blocks import RUNS_AS, block_size
from bandweave.probing.programs import matrix, products

F32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

#: Where a block's float16 numbers lie.
HALVES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "iq4_nl": (0,),
    "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,),
    "iq4_xs": (0,), "mxfp4": (),
}  # fmt: skip


def random_blocks(
    rng: np.random.Generator, source: str, rows: int, columns: int, size: float = 0.01
) -> Bytes:
    """Rows of blocks of any bits, whose scales are about ``size``, of either sign: some zeros and,
    where ``size`` is tiny, some subnormal ones."""
    each, width = block_size(source)
    blocks = rng.integers(0, 256, (rows, columns // each, width), dtype=np.uint8)
    if source == "mxfp4":
        blocks[..., 0] = rng.integers(110, 126, blocks.shape[:2])
    for at in HALVES[source]:
        scales = size * rng.uniform(-1.5, 1.5, blocks.shape[:2])
        scales[rng.random(scales.shape) < 0.05] = 0
        blocks[..., at : at + 2] = scales.astype("<f2")[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def put_halves(blocks_NX: Bytes, source: str, value: float, which: int = 0) -> None:
    """Every block's ``d``, or what is at another of the places of ``HALVES``."""
    at = HALVES[source][which]
    blocks = blocks_NX.reshape(len(blocks_NX), -1, block_size(source)[1])
    blocks[..., at : at + 2] = np.array([value], "<f2").view(np.uint8)


def packed(source: str, blocks_NX: Bytes, unit: int, format: str = "") -> _native.Matrix:
    """The native matrix of these rows, by default in the format that keeps them."""
    each, width = block_size(source)
    columns = blocks_NX.shape[1] // width * each
    format = format or RUNS_AS[source]
    arena = _native.Arena(_native.matrix_bytes(format, len(blocks_NX), columns, unit))
    result = _native.Matrix(arena, format, len(blocks_NX), columns, unit)
    result.clear()
    result.pack(0, blocks_NX, source=source)
    return result


def native_product(
    held: _native.Matrix, x_TK: F32, outputs: int, unit: int, *, isa: str, flush: bool = False
) -> npt.NDArray[np.generic]:
    """``x`` times a matrix: float32 ``[T, N]`` where the unit is the whole k, else grid steps."""
    rows, inputs = x_TK.shape
    on_grid = unit < inputs
    program = products([matrix("w", outputs, inputs, unit)], on_grid=on_grid)
    pages = -(-rows // 64)
    executor = native_executor(
        program,
        [held],
        [],
        ExecutorOptions(
            max_rows=rows, num_pages=pages, max_pages=pages, isa=isa, flush_to_zero=flush
        ),
    )
    positions = np.arange(rows, dtype=np.int32)
    zeros = np.zeros(rows, np.int32)
    tables = np.arange(pages, dtype=np.int32)[None]
    executor.open(zeros, zeros, positions, zeros, tables, False)
    executor.perform(0, np.ascontiguousarray(x_TK))
    executor.perform(1)
    values = executor.grid(1) if on_grid else executor.floats(1)
    return values[:rows, :outputs].copy()
