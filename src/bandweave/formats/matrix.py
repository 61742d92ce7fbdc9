"""What a weight matrix is once it has a format. Knows no arithmetic.

Suffixes: N outputs, K inputs, G groups of up to 32 inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.formats.block_matrix import BlockMatrix
from bandweave.formats.groups import Groups
from bandweave.formats.stored import stored


@dataclass(frozen=True, kw_only=True)
class PlainMatrix:
    """``f32`` or ``bf16`` weights: ``w_NK`` holds their values as float32."""

    format: str
    w_NK: npt.NDArray[np.float32]
    unit: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(outputs, inputs)``."""
        return self.w_NK.shape

    @property
    def groups(self) -> Groups:
        return Groups(inputs=self.w_NK.shape[1], unit=self.unit)


@dataclass(frozen=True, kw_only=True)
class QuantisedMatrix:
    """Weights of 8 or 4 bits: integers and a scale a group.

    ``q_NK`` is int8, unpacked: -127..127 for q8 (-128 too where GGUF stored it), 0..15 (eight above
    the integer that is meant) for q4, and the codes 0..15 for the formats with a code book.
    ``d_NG`` is in the order of ``groups``: float16, or float32 for mxfp4, whose scales are powers
    of two.
    """

    format: str
    q_NK: npt.NDArray[np.int8]
    d_NG: npt.NDArray[np.float16] | npt.NDArray[np.float32]
    unit: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(outputs, inputs)``."""
        return self.q_NK.shape

    @property
    def groups(self) -> Groups:
        return Groups(inputs=self.q_NK.shape[1], unit=self.unit)


Matrix = PlainMatrix | QuantisedMatrix | BlockMatrix


def finite_float32(w_NK: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The weights as they are stored; ``ValueError`` where one is a NaN or an infinity."""
    if w_NK.dtype != np.float32 or w_NK.ndim != 2:
        raise TypeError(f"weights must be a float32 matrix, not {w_NK.dtype} {w_NK.shape}")
    bad = np.argwhere(~np.isfinite(w_NK))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        value = w_NK[row, column]
        raise ValueError(f"weight [{row}, {column}] is {value}, and {len(bad)} are not finite")
    return stored(w_NK)


def finite_scales(s_NG: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Float32 scales rounded to float16; ``ValueError`` where one overflows."""
    with np.errstate(over="ignore", under="ignore"):
        d_NG = s_NG.astype(np.float16)
    bad = np.argwhere(~np.isfinite(d_NG))
    if len(bad):
        row, group = (int(index) for index in bad[0])
        raise ValueError(
            f"row {row}, group {group}: scale {s_NG[row, group]} is beyond float16 (65504); "
            "use bf16 or f32"
        )
    return d_NG
