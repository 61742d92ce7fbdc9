"""The weight formats by name. Knows what a weight costs in each; knows no kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from bandweave.formats import bf16, block_matrix, f32, integers, mxfp4, nf4, q4, q8, ulaw4
from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.block_types import BLOCK_TYPES
from bandweave.formats.matrix import Matrix


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """One format: what it costs, and how weights enter and leave it.

    ``bytes_per_weight`` counts a full group's scale: 18/32 for q4, 34/32 for q8, 17/32 for mxfp4,
    whose scale is a byte.
    ``quantise(w_NK, unit)`` takes float32 ``[outputs, inputs]`` and raises ``ValueError`` (without
    the tensor's name, which the caller adds) where a weight or its scale cannot be represented; for
    the block formats it always does.
    """

    name: str
    bytes_per_weight: Fraction
    quantise: Callable[[npt.NDArray[np.float32], int], Matrix]
    dequantise: Callable[[Matrix], npt.NDArray[np.float32]]


_FORMATS: Mapping[str, WeightFormat] = {
    format.name: format
    for format in (
        WeightFormat(
            name="q4",
            bytes_per_weight=Fraction(18, 32),
            quantise=q4.quantise,
            dequantise=q4.dequantise,
        ),
        WeightFormat(
            name="q8",
            bytes_per_weight=Fraction(34, 32),
            quantise=q8.quantise,
            dequantise=q8.dequantise,
        ),
        WeightFormat(
            name="mxfp4",
            bytes_per_weight=Fraction(17, 32),
            quantise=mxfp4.quantise,
            dequantise=integers.dequantise,
        ),
        WeightFormat(
            name="nf4",
            bytes_per_weight=Fraction(18, 32),
            quantise=nf4.quantise,
            dequantise=integers.dequantise,
        ),
        WeightFormat(
            name="ulaw4",
            bytes_per_weight=Fraction(18, 32),
            quantise=ulaw4.quantise,
            dequantise=integers.dequantise,
        ),
        WeightFormat(
            name="bf16",
            bytes_per_weight=Fraction(2),
            quantise=bf16.quantise,
            dequantise=bf16.dequantise,
        ),
        WeightFormat(
            name="f32",
            bytes_per_weight=Fraction(4),
            quantise=f32.quantise,
            dequantise=f32.dequantise,
        ),
    )
}

FORMAT_NAMES: tuple[str, ...] = tuple(_FORMATS)
"""Those that any weights can be made into."""


def _block_format(name: str) -> WeightFormat:
    def refuse(w_NK: npt.NDArray[np.float32], unit: int) -> Matrix:
        raise ValueError(
            f"weights can't be made into {name}, which keeps blocks as a GGUF file stores them; "
            f"choose one of {', '.join(FORMAT_NAMES)}"
        )

    def dequantise(matrix: Matrix) -> npt.NDArray[np.float32]:
        assert isinstance(matrix, BlockMatrix)
        return block_matrix.dequantise(matrix)

    return WeightFormat(
        name=name,
        bytes_per_weight=BLOCK_TYPES[name].bytes_per_weight,
        quantise=refuse,
        dequantise=dequantise,
    )


_BLOCK_FORMATS = {name: _block_format(name) for name in BLOCK_TYPES}


def get_format(name: str) -> WeightFormat:
    """The format of that name; ``ValueError`` that lists the names there are."""
    found = _FORMATS.get(name) or _BLOCK_FORMATS.get(name)
    if found is None:
        raise ValueError(f"weight format {name!r} is not known; known are {', '.join(_FORMATS)}")
    return found
