"""Where the groups of a matrix's k lie: units, groups of 32 that restart at each unit.

Knows sizes only; knows no formats. Section 1 of docs/numerics.md.

Suffixes: K inputs, G groups, P = 32 G padded places, N any leading dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

GROUP = 32

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The cut of ``inputs`` elements into units of ``unit`` and these into groups of 32.

    The last unit, and the last group of each unit, may be short.
    """

    inputs: int
    unit: int

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.unit < 1:
            raise ValueError(f"{self.inputs} inputs cannot be cut into units of {self.unit}")

    @property
    def units(self) -> tuple[range, ...]:
        """The elements of each unit."""
        return tuple(
            range(start, min(start + self.unit, self.inputs))
            for start in range(0, self.inputs, self.unit)
        )

    @property
    def groups(self) -> tuple[range, ...]:
        """The elements of each group, in order."""
        return tuple(
            range(start, min(start + GROUP, unit.stop))
            for unit in self.units
            for start in range(unit.start, unit.stop, GROUP)
        )

    @property
    def groups_of_units(self) -> tuple[range, ...]:
        """The group numbers of each unit."""
        result, start = [], 0
        for unit in self.units:
            stop = start + -(-len(unit) // GROUP)
            result.append(range(start, stop))
            start = stop
        return tuple(result)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.groups_of_units[-1].stop

    @property
    def places_K(self) -> npt.NDArray[np.intp]:
        """Each element's place where every group is padded to 32 elements."""
        k = np.arange(self.inputs)
        stride = -(-self.unit // GROUP) * GROUP
        return k // self.unit * stride + k % self.unit

    def pad(self, values_NK: npt.NDArray[_Scalar], fill: float = 0) -> npt.NDArray[_Scalar]:
        """``[N, G, 32]``: the groups, short ones completed with ``fill``."""
        shape = (*values_NK.shape[:-1], self.count * GROUP)
        padded_NP = np.full(shape, fill, dtype=values_NK.dtype)
        padded_NP[..., self.places_K] = values_NK
        return padded_NP.reshape(*values_NK.shape[:-1], self.count, GROUP)

    def unpad(self, padded_NG32: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """``[N, K]``: the inverse of ``pad``."""
        padded_NP = padded_NG32.reshape(*padded_NG32.shape[:-2], self.count * GROUP)
        return padded_NP[..., self.places_K]
