"""AtHand: what memory and a cache have of a program's matrices already, and what they lack.

Knows programs, weights that others hold, and the cache of packed ones; reads no checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from bandweave import _native
from bandweave.checkpoints.source import TensorSource
from bandweave.formats.gguf_blocks import is_as_stored
from bandweave.programs.program import Weight
from bandweave.ranges import Range
from bandweave.weights.known_content import KnownContent
from bandweave.weights.packed import Fresh, Weights
from bandweave.weights.panel_cache import Held, PanelCache
from bandweave.weights.panel_memory import bytes_of, take_kept
from bandweave.weights.panel_sections import Section, missing, sections, step_runs

_BATCH_BYTES = 1 << 20  # packed, that a thread looks for at least


class AtHand:
    """``kept``: weights whose memory passes into the ``matrices``; ``least_cached``: packed bytes
    of a section from which on a file of it is of use. ``kept_bytes``: what memory had; ``over``:
    nothing more is taken from the cache, for nobody wants it."""

    def __init__(
        self,
        source: TensorSource,
        weight_format: str,
        matrices: dict[str, _native.Matrix],
        cache: PanelCache | None,
        kept: Sequence[Weights],
        known: KnownContent,
        least_cached: int,
    ) -> None:
        self._source, self._format, self._matrices = source, weight_format, matrices
        self._cache, self._kept, self._known = cache, kept, known
        self._least_cached = least_cached
        self._held: dict[str, list[Held]] = {} if cache is None else cache.held()
        self._lock = threading.Lock()
        self.kept_bytes, self.over = 0, False

    def lookups(
        self, pool: ThreadPoolExecutor, weights: Sequence[Weight]
    ) -> Iterator[tuple[list[Weight], list[list[Fresh]]]]:
        """Weights in order, some at a time, each with its gaps. Threads look where that may mean
        reading."""
        batches = self._batches(weights)
        if self._cache is None and not self._kept:
            return map(self._gaps_of, batches)
        return pool.map(self._gaps_of, batches)

    def _batches(self, weights: Sequence[Weight]) -> Iterator[list[Weight]]:
        """Weights in order, small ones together."""
        batch: list[Weight] = []
        size = 0
        for weight in weights:
            batch.append(weight)
            size += self._matrices[weight.name].nbytes
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _gaps_of(self, weights: list[Weight]) -> tuple[list[Weight], list[list[Fresh]]]:
        return weights, [self._gaps(weight) for weight in weights]

    def _gaps(self, weight: Weight) -> list[Fresh]:
        """What neither memory nor a cache has of a matrix; the rest is in its place."""
        gaps: list[Fresh] = []
        own = sections(weight, self._source.shape)
        left_of = self._take_kept(weight, own) if self._kept else [[one.range] for one in own]
        for section, left in zip(own, left_of, strict=True):
            key = ""
            if self._cache is not None and not self.over and self._is_cached(weight, section):
                described, own_format = (
                    self._describe(weight, section),
                    weight.format_in(self._format),
                )
                key = self._cache.key(section, described, own_format)
                left = self._load(self._cache, key, weight, section, left)
            gaps += [Fresh(weight=weight, key=key, section=section, part=part) for part in left]
        return gaps

    def _is_cached(self, weight: Weight, section: Section) -> bool:
        """Whether a cache is of use for a section: one that is small, or whose blocks stay as they
        are stored, is packed from the checkpoint's file as fast as it is read from another."""
        own_format = weight.format_in(self._format)
        if bytes_of(section, section.range, own_format) < self._least_cached:
            return False
        stored = {self._source.dtype(part.tensor) for part in weight.parts}
        return not all(is_as_stored(one, own_format, weight.unit) for one in stored)

    def _take_kept(self, weight: Weight, own: Sequence[Section]) -> list[list[Range]]:
        """What is left of each section once memory has given what it has, which it then frees."""
        found: list[list[Range]] = [[] for _ in own]
        panels, own_format = self._matrices[weight.name].panels, weight.format_in(self._format)
        for kept in self._kept:
            held = kept.parts if kept.partial is None else kept.partial.filled
            if weight.name not in held:
                continue
            before, matrix = kept.parts[weight.name], kept.matrices[weight.name]
            theirs = sections(before, self._source.shape)
            filled: Sequence[Sequence[Range]] = [[one.range] for one in theirs]
            if kept.partial is not None:
                filled = kept.partial.filled[weight.name]
            for section, parts in zip(own, found, strict=True):
                parts += take_kept(
                    weight, section, panels, before, theirs, matrix.panels, own_format, filled
                )
            matrix.release()
        left = [missing(section.range, parts) for section, parts in zip(own, found, strict=True)]
        with self._lock:
            for section, gaps in zip(own, left, strict=True):
                held = missing(section.range, gaps)
                self.kept_bytes += sum(bytes_of(section, part, own_format) for part in held)
        return left

    def _load(
        self, cache: PanelCache, key: str, weight: Weight, section: Section, wanted: Sequence[Range]
    ) -> list[Range]:
        """What is left of a section once what it holds is known to lie in the cache."""
        left: list[Range] = []
        panels = self._matrices[weight.name].panels
        for part in wanted:
            for run, sums in step_runs(section, part, weight, self._known.content):
                if sums is None:
                    left.append(run)
                    continue
                held = self._held.get(key, ())
                own_format = weight.format_in(self._format)
                left += cache.load(held, section, run, panels, sums, own_format)
        return left

    def _describe(self, weight: Weight, section: Section) -> str:
        """The tensors of a section, by what tells them from others without reading them."""
        parts = [part for part, _ in section.blocks(weight, section.range)]
        return " ".join(
            f"{part.tensor} {self._source.dtype(part.tensor)} {self._source.shape(part.tensor)}"
            for part in parts
        )
