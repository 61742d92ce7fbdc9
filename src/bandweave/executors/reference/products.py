"""Products of docs/numerics.md, sections 3 and 4, in numpy: activations, units and the grid.

Knows matrices and rows; knows no programs and no nodes.

Suffixes: T rows, N outputs, K inputs, G groups, 32 the elements of a group (short ones padded).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bandweave.executors.reference.block_products import block_unit_sums
from bandweave.executors.reference.math import F32, F64, add_product, fma
from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.groups import Groups
from bandweave.formats.integers import integers
from bandweave.formats.matrix import Matrix, PlainMatrix, QuantisedMatrix
from bandweave.formats.stored import SMALLEST

GRID_BITS = 24  # a grid step is 2^-24
GRID_LIMIT = 2.0**51  # grid steps, exclusive

Grid = npt.NDArray[np.int64]


class NumbersError(ValueError):
    """Numbers that the rules refuse (section 8); the caller adds the operation's name."""


def linear(x_TK: F32, matrix: Matrix, bias_N: F32 | None) -> F32:
    """``x @ w.T + bias``, ``[T, N]``, for a matrix of one unit."""
    (y_TN,) = unit_sums(x_TK, matrix)
    if bias_N is None:
        return y_TN
    with np.errstate(over="ignore", invalid="ignore"):
        return y_TN + bias_N


def linear_grid(x_TK: F32, matrix: Matrix, factors_T: F32 | None = None) -> Grid:
    """``x @ w.T`` as grid steps, ``[T, N]``: the sum of the units' rounded sums, each multiplied by
    its row's factor first."""
    total_TN: Grid | None = None
    for y_TN in unit_sums(x_TK, matrix):
        if factors_T is not None:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                y_TN = y_TN * factors_T[:, None]
        grid_TN = to_grid(y_TN)
        total_TN = grid_TN if total_TN is None else total_TN + grid_TN
    assert total_TN is not None
    return total_TN


def to_grid(y_TN: F32) -> Grid:
    """A unit's float32 sums rounded to grid steps; ``NumbersError`` beyond the limit."""
    steps_TN = y_TN.astype(np.float64) * 2.0**GRID_BITS
    _check_grid(steps_TN)
    return np.rint(steps_TN).astype(np.int64)


def add_grid(x_TN: F32, total_TN: Grid, bias_N: F32 | None) -> F32:
    """The residual plus the total of all nodes; ``NumbersError`` beyond the limit."""
    _check_grid(total_TN.astype(np.float64))
    y_TN: F32 = np.multiply(total_TN.astype(np.float32), np.float32(2.0**-GRID_BITS))
    with np.errstate(over="ignore", invalid="ignore"):
        return x_TN + (y_TN if bias_N is None else y_TN + bias_N)


def _check_grid(steps: F64) -> None:
    beyond = ~(np.abs(steps) < GRID_LIMIT)  # True for NaN
    if beyond.any():
        row, column = (int(index) for index in np.argwhere(beyond)[0])
        raise NumbersError(
            f"row {row}, column {column} is {steps[row, column]:g} grid steps; "
            "the limit is 2^51 (a sum of about 1.3e8)"
        )


def unit_sums(x_TK: F32, matrix: Matrix) -> Iterator[F32]:
    """Each unit's float32 sums ``[T, N]``, in order."""
    if isinstance(matrix, PlainMatrix):
        return _plain_unit_sums(x_TK, matrix)
    if isinstance(matrix, BlockMatrix):
        return block_unit_sums(*quantise_activations(x_TK, matrix.groups, 127), matrix)
    return _quantised_unit_sums(x_TK, matrix)


def _plain_unit_sums(x_TK: F32, matrix: PlainMatrix) -> Iterator[F32]:
    x_KT = np.ascontiguousarray(x_TK.T, dtype=np.float64)
    w_KN = np.ascontiguousarray(matrix.w_NK.T, dtype=np.float64)
    for unit in matrix.groups.units:
        acc_TN = np.zeros((len(x_TK), len(matrix.w_NK)), dtype=np.float32)
        for k in unit:
            with np.errstate(invalid="ignore"):
                product_TN = x_KT[k][:, None] * w_KN[k]
            acc_TN = add_product(product_TN, acc_TN)
        yield acc_TN


def _quantised_unit_sums(x_TK: F32, matrix: QuantisedMatrix) -> Iterator[F32]:
    groups = matrix.groups
    limit = 32512 if matrix.format == "q8" else 127
    a_TG32, scale_TG = quantise_activations(x_TK, groups, limit)
    q_NG32 = groups.pad(integers(matrix)).astype(np.float64)
    d_NG = matrix.d_NG.astype(np.float32)
    for numbers in groups.groups_of_units:
        acc_TN = np.zeros((len(x_TK), len(q_NG32)), dtype=np.float32)
        for g in numbers:
            # Exact in any order: 32 * 127 * 32512 < 2^53, so float64 may stand in for integers.
            dot_TN = (a_TG32[:, g] @ q_NG32[:, g].T).astype(np.float32)
            with np.errstate(over="ignore", under="ignore"):
                factor_TN = d_NG[:, g] * scale_TG[:, g, None]
            acc_TN = fma(dot_TN, factor_TN, acc_TN)
        yield acc_TN


def quantise_activations(x_TK: F32, groups: Groups, limit: int) -> tuple[F64, F32]:
    """Integers ``a`` up to ``limit`` (``[T, G, 32]``, held as float64) and scales ``[T, G]``.

    ``limit`` is 32512 for q8 and 127 for other formats. ``NumbersError`` where a value is not
    finite.
    """
    x_TG32 = groups.pad(x_TK)
    amax_TG = np.abs(x_TG32).max(axis=2)
    if not np.isfinite(amax_TG).all():
        row, group = (int(index) for index in np.argwhere(~np.isfinite(amax_TG))[0])
        raise NumbersError(f"row {row}, input group {group} holds {amax_TG[row, group]}")
    empty_TG = amax_TG < SMALLEST
    amax_TG = np.where(empty_TG, np.float32(1), amax_TG)
    factor_TG = np.float32(limit) / amax_TG
    with np.errstate(under="ignore"):
        a_TG32 = np.rint(x_TG32 * factor_TG[:, :, None]).astype(np.float64)
    a_TG32[empty_TG] = 0
    scale_TG = np.where(empty_TG, np.float32(0), amax_TG / np.float32(limit))
    return a_TG32, scale_TG
