"""What AWQ and GPTQ have in common: codes that are stored by inputs, ``[inputs, outputs]``, with a
scale and a zero point for every group of inputs and every output.

A weight is ``(code - zero) * scale``, in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.quantised.scales import F32, PIECE, Scales
from bandweave.checkpoints.quantised.words import group_numbers
from bandweave.checkpoints.tensor import Stored
from bandweave.ranges import Range

Codes = npt.NDArray[np.uint8]
ReadCodes = Callable[[Range, Range], Codes]  # of inputs, or groups, and outputs


class InputMajor:
    """A ``Matrix`` of codes that are stored transposed."""

    dtype = "f32"

    def __init__(
        self,
        codes: Stored,
        zeros: Stored,
        scales: Scales,
        groups: Stored | None,
        shape: tuple[int, ...],
        recipe: str,
        bits: int,
        read_codes: ReadCodes,
        read_zeros: ReadCodes,
    ) -> None:
        self.name, self.shape, self.recipe = codes[1].name, shape, recipe
        self.stored_as = f"int{bits}"
        self._scales, self._groups = scales, groups
        self._read_codes, self._read_zeros = read_codes, read_zeros
        others = () if groups is None else (groups,)
        self.stored = (codes, scales.stored, zeros, *others)

    def read(self, rows: range, columns: Range, entry: int = 0) -> F32:
        result = np.empty((len(rows), len(columns)), np.float32)
        if not result.size:
            return result
        outputs = Range(start=rows.start, stop=rows[-1] + 1)
        step = max(1, PIECE // len(outputs))
        for start in range(0, len(columns), step):
            first = columns.start + start
            inputs = Range(start=first, stop=min(first + step, columns.stop))
            values = self._values(inputs, outputs)
            result[:, start : start + len(inputs)] = values[:, :: rows.step].T
        return result

    def _values(self, inputs: Range, outputs: Range) -> F32:
        """``[inputs, outputs]``."""
        group = self._group_of(inputs)
        first = int(group.min())
        some = Range(start=first, stop=int(group.max()) + 1)
        values = self._read_codes(inputs, outputs).astype(np.float32)
        zeros = self._read_zeros(some, outputs).astype(np.float32)
        scales = self._scales.read(some, outputs)
        values -= zeros[group - first]
        with np.errstate(over="ignore"):  # an infinite weight is refused with its tensor's name
            values *= scales[group - first]
        return values

    def _group_of(self, inputs: Range) -> npt.NDArray[np.int64]:
        size = self._scales.block[0]
        if self._groups is None:
            return np.arange(inputs.start, inputs.stop) // size
        return group_numbers(self._groups, inputs, -(-self.shape[1] // size), size)
