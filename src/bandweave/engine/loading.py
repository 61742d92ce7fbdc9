"""Loading: reads a node's slices of a checkpoint in bounded panels and packs them for the kernels.

Knows programs, tensor sources and the native packer; knows no nodes but its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.source import CheckpointError, TensorSource, widen
from bandweave.engine.panel_cache import PanelCache
from bandweave.engine.program import Part, Program, Weight
from bandweave.planning.split import Range

PANEL_BYTES = 64 << 20  # what all threads together read at a time; bounds the memory of loading

_CACHED_BYTES = 32 << 20  # smaller models pack in no time

Progress = Callable[[int, int], None]  # checkpoint bytes read so far, and in all


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A node's weights, packed: matrices by name, and float32 vectors ``[size]`` by name."""

    arena: _native.Arena
    matrices: dict[str, _native.Matrix]
    vectors: dict[str, npt.NDArray[np.float32]]
    fresh: dict[str, str] = field(default_factory=dict)  # cache keys of what had to be packed

    @property
    def num_bytes(self) -> int:
        return self.arena.used + sum(vector.nbytes for vector in self.vectors.values())


def packed_bytes(program: Program, weight_format: str) -> int:
    """Bytes of a program's matrices in a weight format, packed."""
    return sum(
        _aligned(_matrix_bytes(weight, weight_format)) for weight in program.weights.values()
    )


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Rows of one tensor, and where they go."""

    matrix: _native.Matrix
    first_output: int
    part: Part
    rows: Range


def load_weights(
    program: Program,
    source: TensorSource,
    weight_format: str,
    on_progress: Progress = lambda done, total: None,
    threads: int = 1,
    cache: PanelCache | None = None,
    readers: Sequence[int] = (),
) -> Weights:
    """Reads and packs what the program names, ``threads`` panels at a time, or takes it packed from
    a cache.

    ``readers``: the processors of the threads that will compute, where they have memories of their
    own. Peak memory is the packed size plus 64 MiB of panels. ``CheckpointError`` names the tensor
    whose values cannot be used.
    """
    size = packed_bytes(program, weight_format)
    arena = _native.Arena(size)
    matrices = {
        weight.name: _native.Matrix(
            arena, weight_format, weight.outputs, weight.inputs, weight.unit
        )
        for weight in program.weights.values()
    }
    if readers:
        _native.place(list(matrices.values()), readers)
    keys: dict[str, str] = {}
    if cache is not None and size >= _CACHED_BYTES:
        keys = {
            weight.name: cache.key(
                [source.content(part.tensor) for part in weight.parts],
                weight_format,
                f"{weight.parts} {weight.unit}",
            )
            for weight in program.weights.values()
        }
    total = sum(_weight_bytes(weight, source) for weight in program.weights.values())
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        found = dict(
            zip(
                keys,
                pool.map(lambda name: cache.load(keys[name], matrices[name]), keys),
                strict=True,
            )
        ) if cache is not None else {}  # fmt: skip
        panels: list[_Panel] = []
        for weight in program.weights.values():
            if found.get(weight.name):
                done += _weight_bytes(weight, source)
                on_progress(done, total)
            else:
                matrix = matrices[weight.name]
                matrix.clear()
                panels += _panels(weight, matrix, source, PANEL_BYTES // threads)
        tasks = {pool.submit(_load, panel, source): panel for panel in panels}
        try:
            for task in as_completed(tasks):
                task.result()
                done += _panel_bytes(tasks[task], source)
                on_progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    vectors = {
        vector.name: np.concatenate([_vector(source, part) for part in vector.parts])
        for vector in program.vectors.values()
    }
    fresh = {name: key for name, key in keys.items() if not found[name]}
    return Weights(arena=arena, matrices=matrices, vectors=vectors, fresh=fresh)


def keep_weights(weights: Weights, cache: PanelCache, *, model: str, weight_format: str) -> None:
    """Puts what had to be packed into a cache. Takes as long as the disk does."""
    for name, key in weights.fresh.items():
        matrix = weights.matrices[name]
        cache.store(key, matrix, model=model, weight=name, weight_format=weight_format)
    if weights.fresh:
        cache.trim()


def _weight_bytes(weight: Weight, source: TensorSource) -> int:
    return sum(len(part.rows) * _row_bytes(part, source) for part in weight.parts)


def _load(panel: _Panel, source: TensorSource) -> None:
    values = source.read(panel.part.tensor, panel.rows, panel.part.columns)
    try:
        panel.matrix.pack(panel.first_output, values)
    except ValueError as error:
        raise CheckpointError(f"tensor {panel.part.tensor} {error}") from error


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


def _panel_bytes(panel: _Panel, source: TensorSource) -> int:
    return len(panel.rows) * _row_bytes(panel.part, source)


def _panels(
    weight: Weight, matrix: _native.Matrix, source: TensorSource, most_bytes: int
) -> Iterator[_Panel]:
    """All rows of a weight. Panels of 16 outputs are not shared between threads' pieces unless
    parts meet there; bytes of different outputs never overlap, so that it does not matter."""
    output = 0
    for part in weight.parts:
        count = max(1, most_bytes // _row_bytes(part, source))
        for start in range(part.rows.start, part.rows.stop, count):
            rows = Range(start=start, stop=min(start + count, part.rows.stop))
            yield _Panel(matrix=matrix, first_output=output, part=part, rows=rows)
            output += len(rows)
    assert output == weight.outputs, (weight.name, output)
