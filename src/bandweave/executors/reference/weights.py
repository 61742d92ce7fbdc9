"""Loads what a program needs from a checkpoint into numpy, for the reference executor.

Knows sources and formats; knows no files and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.reference.math import F32
from bandweave.formats.gguf_blocks import RUNS_AS, as_stored, block_size
from bandweave.formats.matrix import Matrix
from bandweave.formats.registry import get_format
from bandweave.formats.stored import stored
from bandweave.programs.program import Part, Program, Weight


@dataclass(frozen=True, kw_only=True)
class ReferenceWeights:
    """A program's matrices and float32 vectors, by the program's names."""

    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, F32]


def load_reference(program: Program, source: TensorSource, weight_format: str) -> ReferenceWeights:
    """Reads the parts that the program names; ``ValueError`` names the tensor that is refused."""
    matrices: dict[str, Matrix] = {}
    for weight in program.weights.values():
        parts = [_matrix(source, part, weight, weight_format) for part in weight.parts]
        matrices[weight.name] = _stacked(parts)
        shape = matrices[weight.name].shape
        assert shape == (weight.outputs, weight.inputs), (weight, shape)
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


def _matrix(source: TensorSource, part: Part, weight: Weight, weight_format: str) -> Matrix:
    """A part of a matrix, in its format: GGUF's blocks as they are where that keeps them."""
    own_format, stored_as = weight.format_in(weight_format), source.dtype(part.tensor)
    is_kept = RUNS_AS.get(stored_as) == own_format and not weight.unit % block_size(stored_as)[0]
    read = source.read(part.tensor, part.rows, part.columns)
    values = None if is_kept else widen(read, stored_as)
    if values is not None:
        _refuse_bad_values(part, values)
    try:
        if values is None:
            return as_stored(stored_as, read.view(np.uint8), weight.unit)
        return get_format(own_format).quantise(values, weight.unit)
    except ValueError as error:
        raise ValueError(f"{part.tensor}: {error}") from error


def _stacked(parts: list[Matrix]) -> Matrix:
    """The outputs of matrices of one format, one after the other."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, values in vars(parts[0]).items()
        if isinstance(values, np.ndarray)
    }
    return replace(parts[0], **arrays)


def _read(source: TensorSource, part: Part) -> F32:
    return widen(source.read(part.tensor, part.rows, part.columns), source.dtype(part.tensor))


def _refuse_bad_values(part: Part, values: F32) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{part.tensor} holds a NaN or an infinity in rows {part.rows}")
