"""Loading: reads a node's slices of a checkpoint in bounded panels and packs them for the kernels.

Whatever is read is summed up on the way (`content/blocks.py`), so that the cache can tell
weights by their content, and nodes can compare theirs. Knows programs, tensor sources and the
native packer; knows no nodes but its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.source import CheckpointError, TensorSource, widen
from bandweave.content.blocks import Content, blocks_of, sum_values
from bandweave.programs.program import Part, Program, Vector, Weight
from bandweave.ranges import Range
from bandweave.weights.at_hand import AtHand
from bandweave.weights.known_content import KnownContent
from bandweave.weights.packed import Fresh, Partial, Weights, packed_bytes
from bandweave.weights.panel_cache import PanelCache
from bandweave.weights.panel_memory import bytes_of
from bandweave.weights.panel_sections import missing, sections
from bandweave.weights.panel_work import Read, Work, stored_bytes, unpacked, work

PANEL_BYTES = 64 << 20  # what all threads together read at a time; bounds the memory of loading

_HANDED_BYTES = 1 << 20  # what a thread is given to read at least
_CACHED_BYTES = 32 << 20  # smaller models pack in no time
_CACHED_SECTION_BYTES = 128 << 10  # and a smaller stretch sooner than a file of its own is opened
_LOOK_SECONDS = 0.1  # between two looks at whether it is still wanted

Progress = Callable[[int, int], None]  # checkpoint bytes read so far, and in all


class LoadingInterrupted(Exception):
    """Nobody wants the weights any more. ``weights``: what is in memory of them, ``partial``, to be
    kept by whoever loads others."""

    def __init__(self, weights: Weights) -> None:
        super().__init__("loading was interrupted")
        self.weights = weights


class _Unwanted(Exception):
    """In the midst of a load."""


def load_weights(
    program: Program,
    source: TensorSource,
    weight_format: str,
    on_progress: Progress = lambda done, total: None,
    threads: int = 1,
    cache: PanelCache | None = None,
    readers: Sequence[int] = (),
    kept: Weights | None = None,
    standby: Sequence[Weights] = (),
    least_cached: int | None = None,
    piece_bytes: int = PANEL_BYTES,
    sum_table: bool = True,
    wanted: Callable[[], bool] = lambda: True,
) -> Weights:
    """Reads and packs what the program names, ``threads`` panels at a time, or takes it packed from
    a cache.

    ``readers``: the processors of the threads that will compute, where they have memories of their
    own. ``kept``: weights of the same checkpoint and format, whose memory passes into the new ones'
    matrix by matrix; they are of no use afterwards, unless the program needs exactly them. So do
    those of ``standby``. ``least_cached``: bytes of a program from which on a cache is of use;
    ``piece_bytes``: of the checkpoint, that a thread has in hand at a time. ``sum_table``: whether
    the content is wanted of the table that node 0 reads rows from, which is read for nothing else.
    Peak memory is the packed size plus 64 MiB of panels. ``CheckpointError`` names the tensor
    whose values cannot be used; ``LoadingInterrupted`` soon after they are no longer ``wanted``,
    once what is being read has come.
    """
    if kept is not None and kept.is_of(program):
        return replace(kept, fresh=(), learnt=False, kept_bytes=kept.arena.used)
    others = [one for one in (kept, *standby) if one is not None]
    since, size = time.time(), packed_bytes(program, weight_format)
    arena = _native.Arena(size)
    matrices = {
        weight.name: _native.Matrix(
            arena, weight.format_in(weight_format), weight.outputs, weight.inputs, weight.unit
        )
        for weight in program.weights.values()
    }
    if readers:
        _native.place(list(matrices.values()), readers)
    least = _CACHED_BYTES if least_cached is None else least_cached
    if size < least:
        cache = None
    smallest = min(least, _CACHED_SECTION_BYTES)
    loading = _Loading(program, source, weight_format, matrices, cache, smallest, others, wanted)
    with ThreadPoolExecutor(threads) as pool:
        try:
            loading.run(pool, min(piece_bytes, PANEL_BYTES // threads), on_progress, sum_table)
        except _Unwanted:
            pool.shutdown(cancel_futures=True)
            filled, content = loading.rest()
            raise LoadingInterrupted(
                Weights(
                    arena=arena,
                    matrices=matrices,
                    vectors={} if kept is None else dict(kept.vectors),
                    content=content,
                    parts=program.weights,
                    vector_parts={} if kept is None else dict(kept.vector_parts),
                    since=since,
                    partial=filled,
                )
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    vectors = {vector.name: loading.take_vector(vector) for vector in program.vectors.values()}
    return Weights(
        arena=arena,
        matrices=matrices,
        vectors=vectors,
        content=loading.known.content,
        parts=dict(program.weights),
        vector_parts=dict(program.vectors),
        kept_bytes=loading.at_hand.kept_bytes,
        fresh=tuple(one for one in loading.fresh if one.key),
        learnt=loading.known.learnt,
        since=since,
    )


class _Loading:
    """One load: what memory and the cache have, and what is left to read, which it reads."""

    def __init__(
        self,
        program: Program,
        source: TensorSource,
        weight_format: str,
        matrices: dict[str, _native.Matrix],
        cache: PanelCache | None,
        least_cached: int,
        kept: Sequence[Weights],
        wanted: Callable[[], bool],
    ) -> None:
        self._wanted = wanted
        self._program, self._source, self._format = program, source, weight_format
        self._matrices, self._kept = matrices, kept
        self.known = KnownContent(program, source, cache, (one.content for one in kept))
        self.at_hand = AtHand(
            source, weight_format, matrices, cache, kept, self.known, least_cached
        )
        self.fresh: list[Fresh] = []
        # Of each matrix: what neither memory nor a cache had, and pieces of that to be read.
        self._lacking: dict[str, list[Fresh]] = {}
        self._given: set[str] = set()  # to be read, as far as it was not there
        self._unread: Counter[str] = Counter()
        self._tasks: dict[Future[list[Read]], tuple[int, list[str]]] = {}

    def run(
        self, pool: ThreadPoolExecutor, most_bytes: int, on_progress: Progress, sum_table: bool
    ) -> None:
        """Fills the matrices."""
        weights = list(self._program.weights.values())
        sizes = {weight.name: sum(self._bytes(part) for part in weight.parts) for weight in weights}
        total = sum(sizes.values())
        ended: SimpleQueue[Future[list[Read]]] = SimpleQueue()
        pieces: list[tuple[str, Work]] = []
        waiting = done = 0

        def hand_over() -> None:
            """A thread gets several small pieces at a time: handing one over takes 0.1 ms."""
            nonlocal pieces, waiting
            if pieces:
                task = pool.submit(self._read, [piece for _, piece in pieces])
                self._tasks[task] = waiting, [name for name, _ in pieces]
                task.add_done_callback(ended.put)
            pieces, waiting = [], 0

        def add(name: str, piece: Work) -> int:
            nonlocal waiting
            pieces.append((name, piece))
            self._unread[name] += 1
            size = piece.bytes(self._source)
            waiting += size
            if waiting >= _HANDED_BYTES:
                hand_over()
            return size

        table = self.known.unknown_table() if sum_table else []
        for part in table:
            total += self._bytes(part)
            for piece in unpacked(part, self._source, most_bytes):
                add("", piece)
        for some, gaps_of in self.at_hand.lookups(pool, weights):
            self.at_hand.over = self.at_hand.over or not self._wanted()
            for weight, gaps in zip(some, gaps_of, strict=True):
                self._lacking[weight.name] = gaps
                if self.at_hand.over:  # what is in memory has passed into the matrices, and no more
                    continue
                self._given.add(weight.name)
                left = sum(
                    add(weight.name, piece) for piece in self._work(weight, gaps, most_bytes)
                )
                self.fresh += gaps
                done += sizes[weight.name] - left
            on_progress(done, total)
        if self.at_hand.over:
            raise _Unwanted
        hand_over()
        for _ in range(len(self._tasks)):
            task = self._next(ended)
            done += self._count(task)
            on_progress(done, total)
        for fresh in self.fresh:
            for part, blocks in fresh.section.blocks(fresh.weight, fresh.part):
                self.known.learn(part, blocks)
        for part in table:
            self.known.learn(part, blocks_of(part.unit, part.along))

    def rest(self) -> tuple[Partial, Content]:
        """What of the matrices is in its place after an interruption, when nobody reads any more,
        and what is known of its content."""
        for task in list(self._tasks):
            if task.done() and not task.cancelled() and task.exception() is None:
                self._count(task)
        filled: dict[str, list[list[Range]]] = {}
        size = 0
        for weight in self._program.weights.values():
            gaps = self._lacking.get(weight.name)
            if gaps is None:  # not even looked at
                continue
            if weight.name in self._given and not self._unread[weight.name]:
                for fresh in gaps:
                    for part, blocks in fresh.section.blocks(weight, fresh.part):
                        self.known.learn(part, blocks)
                gaps = []
            own = sections(weight, self._source.shape)
            filled[weight.name] = [
                missing(one.range, [gap.part for gap in gaps if gap.section == one]) for one in own
            ]
            form = weight.format_in(self._format)
            for section, parts in zip(own, filled[weight.name], strict=True):
                size += sum(bytes_of(section, part, form) for part in parts)
        return Partial(filled=filled, num_bytes=size), self.known.content

    def _next(self, ended: SimpleQueue[Future[list[Read]]]) -> Future[list[Read]]:
        """A task that has ended. ``_Unwanted`` where nobody wants what it has read."""
        while True:
            if not self._wanted():
                self.at_hand.over = True
                raise _Unwanted
            try:
                return ended.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue

    def _count(self, task: Future[list[Read]]) -> int:
        """Notes what a task has read; its bytes of the checkpoint. Raises what it met."""
        size, names = self._tasks[task]
        for read in task.result():
            self.known.add(read)
        del self._tasks[task]
        self._unread.subtract(names)
        return size

    def _read(self, pieces: list[Work]) -> list[Read]:
        found = []
        for piece in pieces:
            if self.at_hand.over:
                raise _Unwanted
            found.append(piece.run(self._source))
        return found

    def _work(self, weight: Weight, gaps: list[Fresh], most_bytes: int) -> Iterator[Work]:
        matrix = self._matrices[weight.name]
        left = [(one.section, one.part) for one in gaps]
        own_format = weight.format_in(self._format)
        yield from work(weight, matrix, left, self._source, own_format, most_bytes)

    def take_vector(self, vector: Vector) -> npt.NDArray[np.float32]:
        """``[size]``, from memory where it is there."""
        for one in self._kept:
            same = one.vector_parts.get(vector.name) == vector
            if same and self.known.take_from(one.content, vector.parts):
                return one.vectors[vector.name]
        values = [self._read_vector(part) for part in vector.parts]
        return np.concatenate(values) + np.float32(vector.offset)

    def _read_vector(self, part: Part) -> npt.NDArray[np.float32]:
        """``[size]``, a matrix row after row; so small that nothing is gained by knowing it."""
        stored = self._source.read(part.tensor, part.rows)
        dtype = self._source.dtype(part.tensor)
        values = widen(stored, dtype)
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {part.tensor} holds a NaN or an infinity")
        sums = sum_values(stored, part.rows.start, part.unit, dtype)
        self.known.set(part, blocks_of(part.unit, part.rows).start, sums)
        return values.reshape(-1)

    def _bytes(self, part: Part) -> int:
        return stored_bytes(part, self._source)
