"""Loading: reads a node's slices of a checkpoint in bounded panels and packs them for the kernels.

Knows programs, tensor sources and the native packer; knows no nodes but its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.source import CheckpointError, TensorSource, widen
from bandweave.engine.panel_cache import PanelCache
from bandweave.engine.panel_sections import WHOLE, Section, sections
from bandweave.engine.panel_work import row_bytes, work
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
    fresh: tuple[Fresh, ...] = ()  # what had to be packed and a cache may keep
    since: float = 0.0  # when loading began, in seconds since the epoch

    @property
    def num_bytes(self) -> int:
        return self.arena.used + sum(vector.nbytes for vector in self.vectors.values())


def packed_bytes(program: Program, weight_format: str) -> int:
    """Bytes of a program's matrices in a weight format, packed."""
    return sum(
        _aligned(_matrix_bytes(weight, weight_format)) for weight in program.weights.values()
    )


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A part of a section that had to be packed, and the key by which a cache may keep it."""

    weight: str
    key: str
    section: Section
    part: Range


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
    since, size = time.time(), packed_bytes(program, weight_format)
    arena = _native.Arena(size)
    matrices = {
        weight.name: _native.Matrix(
            arena, weight_format, weight.outputs, weight.inputs, weight.unit
        )
        for weight in program.weights.values()
    }
    if readers:
        _native.place(list(matrices.values()), readers)
    if size < _CACHED_BYTES:
        cache = None
    weights = list(program.weights.values())
    total = sum(_weight_bytes(weight, source) for weight in weights)
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(
            lambda weight: _gaps(weight, matrices[weight.name], source, weight_format, cache),
            weights,
        )
        tasks: dict[Future[None], int] = {}
        fresh: list[Fresh] = []
        try:
            for weight, gaps in zip(weights, found, strict=True):
                left = 0
                for piece in work(
                    weight,
                    matrices[weight.name],
                    [(one.section, one.part) for one in gaps],
                    source,
                    weight_format,
                    PANEL_BYTES // threads,
                ):
                    tasks[pool.submit(piece.run, source)] = piece.bytes(source)
                    left += piece.bytes(source)
                fresh += gaps
                done += _weight_bytes(weight, source) - left
                on_progress(done, total)
            for task in as_completed(tasks):
                task.result()
                done += tasks[task]
                on_progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    vectors = {
        vector.name: np.concatenate([_vector(source, part) for part in vector.parts])
        for vector in program.vectors.values()
    }
    return Weights(
        arena=arena,
        matrices=matrices,
        vectors=vectors,
        fresh=() if cache is None else tuple(fresh),
        since=since,
    )


def keep_weights(weights: Weights, cache: PanelCache, *, model: str, weight_format: str) -> None:
    """Puts what had to be packed into a cache. Takes as long as the disk does."""
    for one in weights.fresh:
        cache.store(
            one.key,
            one.section,
            one.part,
            weights.matrices[one.weight].panels,
            model=model,
            weight=one.weight,
            weight_format=weight_format,
            since=weights.since,  # what this start has found there is not forgotten for it
        )
    if weights.fresh:
        cache.trim()


def _gaps(
    weight: Weight,
    matrix: _native.Matrix,
    source: TensorSource,
    weight_format: str,
    cache: PanelCache | None,
) -> list[Fresh]:
    """What a cache does not have of a matrix; the rest is in its place."""
    gaps = []
    for section in sections(weight, source.shape):
        if cache is None:
            key, left = "", [section.range]
        else:
            tensors = [part.tensor for part in weight.parts]
            tensors = tensors if section.axis == WHOLE else [tensors[section.part]]
            content = " ".join(source.content(tensor) for tensor in tensors)
            key = cache.key(section, content, weight_format)
            left = cache.load(key, section, matrix.panels, weight_format)
        gaps += [Fresh(weight=weight.name, key=key, section=section, part=part) for part in left]
    return gaps


def _weight_bytes(weight: Weight, source: TensorSource) -> int:
    return sum(len(part.rows) * row_bytes(part, source) for part in weight.parts)


def _vector(source: TensorSource, part: Part) -> npt.NDArray[np.float32]:
    values = widen(source.read(part.tensor, part.rows))
    if not np.isfinite(values).all():
        raise CheckpointError(f"tensor {part.tensor} holds a NaN or an infinity")
    return values


def _matrix_bytes(weight: Weight, weight_format: str) -> int:
    return _native.matrix_bytes(weight_format, weight.outputs, weight.inputs, weight.unit)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
