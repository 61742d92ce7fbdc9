"""Standby: what a node would need of a model beside its share, if others were no more, held ready.

A node's programs in the splits that are to be expected say what that is: the stretches of matrices
(`weights.panel_sections`) that its own program has not, each once. They are packed in batches, so
that whatever is there when it is needed counts. Knows programs and loading; knows no nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bandweave.checkpoints.source import TensorSource
from bandweave.programs.program import Part, Program, Weight
from bandweave.ranges import Range
from bandweave.weights.keeping import keep_weights
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights, packed_bytes
from bandweave.weights.panel_cache import PanelCache
from bandweave.weights.panel_sections import COLUMNS, WHOLE, Section, Shape, missing, sections

BATCH_BYTES = 256 << 20  # packed: what is lost of it where it is needed before it is whole
_PIECE_BYTES = 8 << 20  # for which a node that has to take over waits at most


class Interrupted(Exception):
    """Nobody wants it any more."""


@dataclass(eq=False)
class Standby:
    """Batches that are whole; ``num_bytes`` in memory. One thread adds, another takes when that has
    ended."""

    batches: list[Weights] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.batches)

    def clear(self) -> None:
        self.batches.clear()


def lacking(own: Program, others: Sequence[Program], shape: Shape) -> list[Weight]:
    """The stretches of matrices that some of the ``others`` need and ``own`` has not, each once: as
    matrices of their own, several of which may have one name."""
    held: dict[tuple[object, ...], list[Range]] = defaultdict(list)
    for weight, section in _all(own, shape):
        held[_kind(weight, section)].append(section.range)
    first: dict[tuple[object, ...], tuple[Weight, Section]] = {}
    wanted: dict[tuple[object, ...], list[Range]] = defaultdict(list)
    for other in others:
        for weight, section in _all(other, shape):
            kind = _kind(weight, section)
            gaps = missing(section.range, [*held[kind], *wanted[kind]])
            if gaps:
                first.setdefault(kind, (weight, section))
                wanted[kind] += gaps
    return [_stretch(*first[kind], gap) for kind, gaps in wanted.items() for gap in _joined(gaps)]


def standby_bytes(own: Program, others: Sequence[Program], shape: Shape, weight_format: str) -> int:
    """What all of it takes, packed."""
    program = replace(own, weights={str(i): w for i, w in enumerate(lacking(own, others, shape))})
    return packed_bytes(program, weight_format)


def batches(
    own: Program,
    others: Sequence[Program],
    shape: Shape,
    weight_format: str,
    most_bytes: int = BATCH_BYTES,
) -> Iterator[Program]:
    """What to load, one after the other: matrices in batches, and with the first the vectors that
    ``own`` has not, and the table that node 0 reads rows from, whose content has to be known."""
    vectors = {
        name: vector
        for other in others
        for name, vector in other.vectors.items()
        if own.vectors.get(name) != vector
    }
    table = next((one.embedding for one in others if one.embedding is not None), None)
    if own.embedding is not None:
        table = None
    plain = replace(own, weights={}, vectors={}, embedding=None, ops=(), drafts_from=None)
    batch = replace(plain, vectors=vectors, embedding=table)
    size = 0
    for weight in lacking(own, others, shape):
        own_size = packed_bytes(replace(plain, weights={weight.name: weight}), weight_format)
        if batch.weights and (weight.name in batch.weights or size + own_size > most_bytes):
            yield batch
            batch, size = plain, 0
        batch = replace(batch, weights={**batch.weights, weight.name: weight})
        size += own_size
    if batch.weights or batch.vectors or batch.embedding is not None:
        yield batch


def hold_ready(
    programs: Iterator[Program],
    source: TensorSource,
    weight_format: str,
    standby: Standby,
    *,
    wanted: Callable[[], bool],
    cache: PanelCache | None = None,
    on_disk: bool = False,
    model: str = "",
) -> None:
    """Loads batch after batch with one thread, into ``standby``, or with ``on_disk`` into the cache
    alone. ``Interrupted`` soon after it is no longer ``wanted``; errors as ``load_weights``."""

    def check(done: int, total: int) -> None:
        if not wanted():
            raise Interrupted

    for program in programs:
        check(0, 0)
        weights = load_weights(
            program, source, weight_format, check, cache=cache, piece_bytes=_PIECE_BYTES,
            least_cached=0 if on_disk else BATCH_BYTES,
        )  # fmt: skip
        if on_disk:
            assert cache is not None
            keep_weights(weights, source, cache, model=model, weight_format=weight_format)
        else:
            standby.batches.append(weights)


def _all(program: Program, shape: Shape) -> Iterator[tuple[Weight, Section]]:
    for weight in program.weights.values():
        for section in sections(weight, shape):
            yield weight, section


def _kind(weight: Weight, section: Section) -> tuple[object, ...]:
    """What two stretches have in common whose ranges can be compared."""
    tensor = "" if section.axis == WHOLE else weight.parts[section.part].tensor
    return (
        weight.name, tensor, weight.format, section.axis, section.step, section.unit, section.whole,
    )  # fmt: skip


def _stretch(weight: Weight, section: Section, gap: Range) -> Weight:
    """A matrix that is a stretch of another."""
    if section.axis == WHOLE:
        return weight
    part: Part = weight.parts[section.part]
    if section.axis == COLUMNS:
        return replace(weight, parts=(replace(part, columns=gap),), inputs=len(gap))
    return replace(weight, parts=(replace(part, rows=gap),), outputs=len(gap))


def _joined(gaps: Sequence[Range]) -> list[Range]:
    """The same without seams."""
    joined: list[Range] = []
    for gap in sorted(gaps, key=lambda gap: gap.start):
        if joined and joined[-1].stop == gap.start:
            joined[-1] = Range(start=joined[-1].start, stop=gap.stop)
        else:
            joined.append(gap)
    return joined
