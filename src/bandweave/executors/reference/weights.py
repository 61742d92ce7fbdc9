"""Loads what a program needs from a checkpoint into numpy, for the reference executor.

Knows sources and formats; knows no files and no arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.reference.math import F32
from bandweave.formats.gguf_blocks import RUNS_AS, as_stored
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
        own_format = weight.format_in(weight_format)
        parts = [_matrix(source, part, own_format, weight.unit) for part in weight.parts]
        matrix = _joined(parts)
        assert matrix.shape == (weight.outputs, weight.inputs), (weight, matrix.shape)
        matrices[weight.name] = matrix
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


def _matrix(source: TensorSource, part: Part, weight_format: str, unit: int) -> Matrix:
    """Blocks as they are stored where the format keeps them; other weights made into it."""
    kind = source.dtype(part.tensor)
    read = source.read(part.tensor, part.rows, part.columns)
    is_kept = RUNS_AS.get(kind) == weight_format
    values = None if is_kept else widen(read, kind)
    if values is not None:
        _refuse_bad_values(part, values)
    try:
        if values is None:
            return as_stored(kind, read.view(np.uint8), unit)
        return get_format(weight_format).quantise(values, unit)
    except ValueError as error:
        raise ValueError(f"{part.tensor}: {error}") from error


def _joined(matrices: list[Matrix]) -> Matrix:
    """One matrix of the outputs of all."""
    first, *others = matrices
    arrays = {
        name: np.concatenate([value, *(getattr(one, name) for one in others)])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(first, **arrays)


def _read(source: TensorSource, part: Part) -> F32:
    return widen(source.read(part.tensor, part.rows, part.columns), source.dtype(part.tensor))


def _refuse_bad_values(part: Part, values: F32) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{part.tensor} holds a NaN or an infinity in rows {part.rows}")
