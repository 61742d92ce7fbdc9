"""Weights: what a node holds of a model, packed for its kernels. Knows programs; reads no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.content.blocks import Content
from bandweave.programs.program import Program, Vector, Weight
from bandweave.ranges import Range
from bandweave.weights.panel_sections import Section


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A part of a section that had to be packed, and the key by which a cache may keep it; the key
    is empty where none shall."""

    weight: Weight
    key: str
    section: Section
    part: Range


@dataclass(frozen=True, kw_only=True)
class Partial:
    """What is in its place of weights whose loading was interrupted: of each matrix, by name, the
    parts of its sections."""

    filled: Mapping[str, Sequence[Sequence[Range]]]
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A node's weights, packed: matrices by name, and float32 vectors ``[size]`` by name.

    ``content``: the sums of all that they were made of, and of the table that node 0 reads rows
    from, where that was asked for.
    """

    arena: _native.Arena
    matrices: dict[str, _native.Matrix]
    vectors: dict[str, npt.NDArray[np.float32]]
    content: Content = field(default_factory=Content)
    parts: Mapping[str, Weight] = field(default_factory=dict)  # what the matrices are made of
    vector_parts: Mapping[str, Vector] = field(default_factory=dict)  # and the vectors
    fresh: tuple[Fresh, ...] = ()  # what had to be packed and a cache may keep
    learnt: bool = False  # whether some of the content was not known before
    kept_bytes: int = 0  # packed bytes that were in memory already
    since: float = 0.0  # when loading began, in seconds since the epoch
    partial: Partial | None = None  # where loading was interrupted: of no use but to be kept from

    def is_of(self, program: Program) -> bool:
        """Whether they are just what a program needs."""
        whole = self.partial is None
        return whole and self.parts == program.weights and self.vector_parts == program.vectors

    @property
    def num_bytes(self) -> int:
        """In memory."""
        own = self.arena.used if self.partial is None else self.partial.num_bytes
        return own + sum(vector.nbytes for vector in self.vectors.values())


def packed_bytes(program: Program, weight_format: str) -> int:
    """Bytes of a program's matrices in a weight format, packed."""
    sizes: dict[tuple[str, int, int, int], int] = {}  # mixtures have thousands of one size
    total = 0
    for weight in program.weights.values():
        key = weight.format_in(weight_format), weight.outputs, weight.inputs, weight.unit
        size = sizes.get(key)
        if size is None:
            size = sizes[key] = -(-_native.matrix_bytes(*key) // 64) * 64
        total += size
    return total
