"""Loading: reads a node's slices of a checkpoint in bounded panels and packs them for the kernels.

Knows programs, tensor sources and the native packer; knows no nodes but its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.source import CheckpointError, TensorSource, widen
from bandweave.engine.program import Part, Program, Weight
from bandweave.planning.split import Range

PANEL_BYTES = 64 << 20  # what is read at a time; bounds the memory that loading needs

Progress = Callable[[int, int], None]  # checkpoint bytes read so far, and in all


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A node's weights, packed: matrices by name, and float32 vectors ``[size]`` by name."""

    arena: _native.Arena
    matrices: dict[str, _native.Matrix]
    vectors: dict[str, npt.NDArray[np.float32]]

    @property
    def num_bytes(self) -> int:
        return self.arena.used + sum(vector.nbytes for vector in self.vectors.values())


def packed_bytes(program: Program, weight_format: str) -> int:
    """Bytes of a program's matrices in a weight format, packed."""
    return sum(_aligned(_matrix_bytes(weight, weight_format)) for weight in program.weights.values())


def load_weights(
    program: Program,
    source: TensorSource,
    weight_format: str,
    on_progress: Progress = lambda done, total: None,
) -> Weights:
    """Reads and packs what the program names.

    Peak memory is the packed size plus one panel of 64 MiB. ``CheckpointError`` names the tensor
    whose values cannot be used.
    """
    parts = [part for weight in program.weights.values() for part in weight.parts]
    total = sum(_part_bytes(part, source) for part in parts)
    done = 0
    arena = _native.Arena(packed_bytes(program, weight_format))
    matrices: dict[str, _native.Matrix] = {}
    for weight in program.weights.values():
        matrix = _native.Matrix(arena, weight_format, weight.outputs, weight.inputs, weight.unit)
        output = 0
        for part in weight.parts:
            for rows in _panels(part, source):
                try:
                    matrix.pack(output, source.read(part.tensor, rows, part.columns))
                except ValueError as error:
                    raise CheckpointError(f"tensor {part.tensor} {error}") from error
                output += len(rows)
                done += len(rows) * _row_bytes(part, source)
                on_progress(done, total)
        assert output == weight.outputs, (weight.name, output)
        matrices[weight.name] = matrix
    vectors = {
        vector.name: np.concatenate(
            [_vector(source, part) for part in vector.parts] or [np.zeros(0, np.float32)]
        )
        for vector in program.vectors.values()
    }
    return Weights(arena=arena, matrices=matrices, vectors=vectors)


def _vector(source: TensorSource, part: Part) -> npt.NDArray[np.float32]:
    values = widen(source.read(part.tensor, part.rows))
    if not np.isfinite(values).all():
        raise CheckpointError(f"tensor {part.tensor} holds a NaN or an infinity")
    return values


def _matrix_bytes(weight: Weight, weight_format: str) -> int:
    return _native.matrix_bytes(weight_format, weight.outputs, weight.inputs, weight.unit)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _row_bytes(part: Part, source: TensorSource) -> int:
    assert part.columns is not None
    return len(part.columns) * (4 if source.dtype(part.tensor) == "f32" else 2)


def _part_bytes(part: Part, source: TensorSource) -> int:
    return len(part.rows) * _row_bytes(part, source)


def _panels(part: Part, source: TensorSource) -> list[Range]:
    count = max(1, PANEL_BYTES // _row_bytes(part, source))
    starts = range(part.rows.start, part.rows.stop, count)
    return [Range(start=start, stop=min(start + count, part.rows.stop)) for start in starts]
