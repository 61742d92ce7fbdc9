"""Formats of 4-bit codes that stand for a table's values: ``value = d * table[code]``.

Knows how codes are chosen for given scales; which scales there are is each format's to say.

Suffixes: N outputs, G groups, 32 the elements of a group, padded with zeros, L lanes of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_LANES = 8


@dataclass(frozen=True)
class CodeBook:
    """``values[code]`` are 16 small integers; one that is there twice is written by its first
    code."""

    values: tuple[int, ...]

    @property
    def zero(self) -> int:
        """The code of 0: of padding, and of groups that hold nothing else."""
        return self.values.index(0)

    @cached_property
    def _codes(self) -> npt.NDArray[np.int8]:
        """The codes in ascending order of their values."""
        codes = sorted(set(map(self.values.index, self.values)), key=lambda code: self.values[code])
        return np.array(codes, dtype=np.int8)

    @cached_property
    def _bounds(self) -> F32:
        """A number has the rank of as many values as there are bounds below it. Bounds lie halfway
        between two values, or just below, where the larger one has the even code and so the tie."""
        values = np.array([self.values[code] for code in self._codes], dtype=np.float32)
        middles = (values[1:] + values[:-1]) / np.float32(2)
        even = self._codes[1:] % 2 == 0
        return np.where(even, np.nextafter(middles, np.float32(-np.inf)), middles)

    def integers(self, codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """What the codes stand for, before the scale."""
        return np.array(self.values, dtype=np.int8)[codes]

    def choose(
        self, w_NG32: F32, scales_NG: Sequence[F32]
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.intp]]:
        """Codes ``[N, G, 32]`` and which of the scales they are for ``[N, G]``: of each group the
        one that loses least, by the sum of squares, the first on ties. Scales are float32."""
        best_NG32: npt.NDArray[np.int8] | None = None
        chosen_NG = np.zeros(w_NG32.shape[:2], dtype=np.intp)
        least_NG = np.zeros(w_NG32.shape[:2])
        for index, d_NG in enumerate(scales_NG):
            codes_NG32 = self._nearest(w_NG32, d_NG)
            loss_NG = self._loss(w_NG32, d_NG, codes_NG32)
            if best_NG32 is None:
                best_NG32, least_NG = codes_NG32, loss_NG
                continue
            better_NG = loss_NG < least_NG
            chosen_NG[better_NG] = index
            least_NG = np.where(better_NG, loss_NG, least_NG)
            best_NG32 = np.where(better_NG[:, :, None], codes_NG32, best_NG32)
        assert best_NG32 is not None
        return best_NG32, chosen_NG

    def _nearest(self, w_NG32: F32, d_NG: F32) -> npt.NDArray[np.int8]:
        none_NG = d_NG == 0
        r_NG = np.float32(1) / np.where(none_NG, np.float32(1), d_NG)
        x_NG32 = w_NG32 * np.where(none_NG, np.float32(0), r_NG)[:, :, None]
        return self._codes[np.searchsorted(self._bounds, x_NG32, side="left")]

    def _loss(
        self, w_NG32: F32, d_NG: F32, codes_NG32: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float64]:
        """In eight lanes of float64: element i goes to lane i mod 8; then halves are added."""
        values_NG32 = d_NG[:, :, None] * self.integers(codes_NG32).astype(np.float32)
        lost_NG32 = w_NG32.astype(np.float64) - values_NG32.astype(np.float64)
        squares_NGXL = (lost_NG32 * lost_NG32).reshape(*w_NG32.shape[:2], -1, _LANES)
        lanes_NGL = squares_NGXL[:, :, 0]
        for x in range(1, squares_NGXL.shape[2]):
            lanes_NGL = lanes_NGL + squares_NGXL[:, :, x]
        while lanes_NGL.shape[2] > 1:
            half = lanes_NGL.shape[2] // 2
            lanes_NGL = lanes_NGL[:, :, :half] + lanes_NGL[:, :, half:]
        return lanes_NGL[:, :, 0]
