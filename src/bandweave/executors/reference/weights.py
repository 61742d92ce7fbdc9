"""Loads what a program needs from a checkpoint into numpy, for the reference executor.

Knows sources and formats; knows no files and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.reference.math import F32
from bandweave.formats.matrix import Matrix
from bandweave.formats.registry import get_format
from bandweave.formats.stored import stored
from bandweave.programs.program import Part, Program


@dataclass(frozen=True, kw_only=True)
class ReferenceWeights:
    """A program's matrices and float32 vectors, by the program's names."""

    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, F32]


def load_reference(program: Program, source: TensorSource, weight_format: str) -> ReferenceWeights:
    """Reads the parts that the program names; ``ValueError`` names the tensor that is refused."""
    matrices: dict[str, Matrix] = {}
    for weight in program.weights.values():
        parts = [_read(source, part) for part in weight.parts]
        for part, values in zip(weight.parts, parts, strict=True):
            _refuse_bad_values(part, values)
        w_NK = np.concatenate(parts)
        assert w_NK.shape == (weight.outputs, weight.inputs), (weight, w_NK.shape)
        try:
            own_format = get_format(weight.format_in(weight_format))
            matrices[weight.name] = own_format.quantise(w_NK, weight.unit)
        except ValueError as error:
            tensors = ", ".join(part.tensor for part in weight.parts)
            raise ValueError(f"{tensors}: {error}") from error
    vectors: dict[str, F32] = {}
    for vector in program.vectors.values():
        pieces = [_read(source, part) for part in vector.parts]
        for part, values in zip(vector.parts, pieces, strict=True):
            _refuse_bad_values(part, values)
        vectors[vector.name] = stored(
            np.concatenate([one.reshape(-1) for one in pieces]) + np.float32(vector.offset)
        )
        assert vectors[vector.name].shape == (vector.size,), vector
    return ReferenceWeights(matrices=matrices, vectors=vectors)


def _read(source: TensorSource, part: Part) -> F32:
    values = widen(source.read(part.tensor, part.rows, part.columns))
    return values


def _refuse_bad_values(part: Part, values: F32) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{part.tensor} holds a NaN or an infinity in rows {part.rows}")
