"""KnownContent: what a load knows of the content of what it reads, and what it learns of it.

Sums of a block come in pieces, from any threads' reads (`content/blocks.py`); a block counts as
known once all of it was read. Knows programs and tensor sources; packs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.source import TensorSource
from bandweave.content.blocks import U64, Content, blocks_of, num_blocks, runs_of
from bandweave.programs.program import Part, Program
from bandweave.ranges import Range
from bandweave.weights.panel_cache import PanelCache
from bandweave.weights.panel_work import Read


class KnownContent:
    """Of what one program needs. ``learnt``: whether anything was read for it."""

    def __init__(
        self,
        program: Program,
        source: TensorSource,
        cache: PanelCache | None,
        kept: Iterable[Content],
    ) -> None:
        """Begins with what is ``kept`` of the checkpoint, and what a cache remembers of it."""
        self._program, self._source = program, source
        self._units = {
            part.tensor: part.unit for weight in program.weights.values() for part in weight.parts
        }
        if program.embedding is not None:
            self._units[program.embedding.tensor] = program.embedding.unit
        self._sums: dict[str, npt.NDArray[np.uint64]] = {}  # of blocks that are being read
        self.content, self.learnt = self._before(cache, kept), False

    def _before(self, cache: PanelCache | None, kept: Iterable[Content]) -> Content:
        needed, content = self._units.keys(), Content()
        for one in kept:
            content.update(one)
        if cache is not None:
            keys = {self._source.file_key(name) for name in needed}
            for key in sorted(keys - {""}):
                content.update(cache.known(key))
        return Content({name: content.tensors[name] for name in needed & content.tensors.keys()})

    def unknown_table(self) -> list[Part]:
        """What is left of the embedding, whose rows are read one by one when they are needed, once
        what is known of it, or read as a matrix, is left out."""
        table = self._program.embedding
        if table is None:
            return []
        blocks = blocks_of(table.unit, table.rows)
        left = np.ones(len(blocks), np.bool_)
        if (known := self.content.tensors.get(table.tensor)) is not None:
            left &= ~known.known
        for weight in self._program.weights.values():
            for part in weight.parts:
                if part.tensor == table.tensor:
                    packed = blocks_of(part.unit, part.rows)
                    left[packed.start : packed.stop] = False
        parts = []
        for run in runs_of(left):
            start, stop = (place * table.unit.size for place in (run.start, run.stop))
            parts.append(replace(table, rows=Range(start=start, stop=min(stop, table.rows.stop))))
        return parts

    def add(self, read: Read) -> None:
        """A piece of some blocks was read."""
        sums = self._sums.get(read.tensor)
        if sums is None:
            count = num_blocks(self._units[read.tensor], self._source.shape(read.tensor))
            sums = self._sums[read.tensor] = np.zeros(count, np.uint64)
        sums[read.first : read.first + len(read.sums)] += read.sums

    def learn(self, part: Part, blocks: Range) -> None:
        """All of these blocks have been read."""
        self.learnt = True
        sums = self._sums[part.tensor][blocks.start : blocks.stop]
        self.set(part, blocks.start, sums)

    def set(self, part: Part, first: int, sums: U64) -> None:
        """These are the sums of a part's blocks from number ``first`` on."""
        shape = self._source.shape(part.tensor)
        self.content.learn(part.tensor, part.unit, shape, first, sums)

    def take_from(self, other: Content, parts: Sequence[Part]) -> bool:
        """Whether all of the parts' content is known there; then it is known here, too."""
        known = [
            (part, blocks.start, other.get(part.tensor, blocks))
            for part in parts
            for blocks in [blocks_of(part.unit, part.rows)]
        ]
        if any(sums is None for _, _, sums in known):
            return False
        for part, first, sums in known:
            if sums is not None:
                self.set(part, first, sums)
        return True
