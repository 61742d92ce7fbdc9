"""The controller's side of comparing content: all nodes' copies of a model must be one model.

Nodes sum up what they read (`content/blocks.py`). Before the first step every block is
compared with the controller's own copy or its manifest, where it has them, and with every other
node that read the same block. Knows reports and one folder; sends nothing.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.content.blocks import (
    U64,
    Content,
    block_bytes,
    blocks_of,
    sum_rows,
)
from bandweave.content.manifest import read_manifest
from bandweave.messages import BlockSums, ContentReport
from bandweave.models.graph_op import SplitUnit
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.program import Part
from bandweave.programs.split import Split
from bandweave.ranges import Range
from bandweave.weights.keeping import remember_content
from bandweave.weights.panel_cache import PanelCache

_SHOWN_TENSORS = 3


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Bytes of all nodes' shares, as stored, by how their content was compared before the first
    step: they are in the very files of the controller's copy; compared with another copy, or with a
    manifest; or with nothing, since nobody else has them."""

    same_file_bytes: int = 0
    compared_bytes: int = 0
    uncompared_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Some blocks of a tensor, as a node reported them."""

    node: int
    file: str
    blocks: Range
    sums: U64


@dataclass(kw_only=True)
class _Tensor:
    unit: SplitUnit
    item_bits: float
    runs: list[_Run] = field(default_factory=list)


class ContentCheck:
    """Gathers reports while nodes load; ``finish`` compares. ``names`` are those of the nodes;
    ``further``: they load the model's further layer, too."""

    def __init__(
        self,
        folder: Folder,
        split: Split,
        names: Sequence[str],
        cache: PanelCache | None,
        *,
        further: bool = False,
    ) -> None:
        self._folder, self._split, self._names = folder, split, names
        self._graph = build_graph(folder.spec, further=further)
        self._shapes = {weight.name: weight.shape for weight in self._graph.weights()}
        # Files may have a head beside an embedding that the config ties; without them nobody knows.
        self._shapes.setdefault("lm_head", self._shapes["embed_tokens"])
        self._paths: dict[int, str] = {}
        self._tensors: dict[str, _Tensor] = {}
        headers = folder.layout_fingerprint().headers
        self._manifest = read_manifest(folder.path, headers) if folder.has_weights else None
        self._own = _OwnCopy(folder, cache)

    def found(self, node: int, path: str, *, same_files: bool) -> None:
        """A node has its copy at ``path``; ``same_files``: they are the controller's own."""
        self._paths[node] = path
        if same_files or not self._folder.has_weights or self._manifest is not None:
            return
        if not self._folder.whole:  # it would be fetched for nothing but this
            return
        self._own.want(lower(self._graph, self._split, node).parts())

    def report(self, node: int, report: ContentReport) -> None:
        """What a node says of its copy. ``ValueError`` where that makes no sense."""
        for one in report.blocks:
            shape = self._shapes.get(one.tensor)
            if shape is None or not 0 < one.item_bits <= 64 or not one.size:
                raise ValueError(f"it reports of a tensor {one.tensor[:80]!r}")
            unit = SplitUnit(columns=one.columns and len(shape) == 2, size=one.size)
            tensor = self._tensors.setdefault(
                one.tensor, _Tensor(unit=unit, item_bits=one.item_bits)
            )
            if (tensor.unit, tensor.item_bits) != (unit, one.item_bits):
                raise ValueError(f"it reports other blocks of {one.tensor!r} than others do")
            tensor.runs.append(_run(node, one))

    def finish(
        self,
        same_file_bytes: int,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Agreement:
        """Compares all that was reported; ``on_progress`` hears bytes of the controller's own copy
        that are still being read. ``CheckpointError`` names a copy that differs: machine, file and
        tensors."""
        reference = self._manifest
        if reference is None:
            reference = self._own.result(on_progress)
        wrong: dict[tuple[int, str], list[str]] = defaultdict(list)
        compared = alone = 0
        for name, tensor in self._tensors.items():
            sizes = block_bytes(tensor.unit, self._shapes[name], tensor.item_bits)
            known = reference.tensors.get(name)
            if known is not None and known.unit != tensor.unit:
                known = None
            holders = np.zeros(len(sizes), np.int64)
            if known is not None:
                holders += known.known
            for run in tensor.runs:
                if run.blocks.stop > len(sizes):
                    raise CheckpointError(f"{self._names[run.node]} reports blocks that are none")
                holders[run.blocks.start : run.blocks.stop] += 1
                if known is not None and _differ(run, known.sums, known.known):
                    wrong[run.node, run.file].append(name)
            for run, other in _meeting(tensor.runs) if known is None else ():
                wrong[run.node, run.file].append(name)
                wrong[other.node, other.file].append(name)
            for run in tensor.runs:
                some = slice(run.blocks.start, run.blocks.stop)
                together = int(sizes[some][holders[some] > 1].sum())
                compared += together
                alone += int(sizes[some].sum()) - together
        if wrong:
            raise CheckpointError(self._complaint(wrong))
        return Agreement(
            same_file_bytes=same_file_bytes, compared_bytes=compared, uncompared_bytes=alone
        )

    def close(self) -> None:
        """Stops reading the controller's own copy."""
        self._own.close()

    def _complaint(self, wrong: dict[tuple[int, str], list[str]]) -> str:
        """Names every copy that differs, the worst first."""
        copies = sorted(wrong.items(), key=lambda item: -len(item[1]))
        (node, file), tensors = copies[0]
        named = [self._folder.stored_name(name) for name in dict.fromkeys(tensors)]
        more = f" and {len(named) - _SHOWN_TENSORS} more" if len(named) > _SHOWN_TENSORS else ""
        where = f"{self._names[node]}: {self._paths.get(node, '')}/{file}"
        others = [f"{self._names[other]}'s {name}" for (other, name), _ in copies[1:]]
        against = "this machine's copy" if self._folder.has_weights else "the copies of others"
        also = f" (and so do {', '.join(others[:_SHOWN_TENSORS])})" if others else ""
        return (
            f"{where} differs from {against}{also} in {', '.join(named[:_SHOWN_TENSORS])}{more}: "
            "one of them is damaged or another version; `bandweave doctor --verify MODEL` on each "
            "machine tells which, then copy the sound files"
        )


class _OwnCopy:
    """Sums up parts of the controller's copy in a thread, and remembers them."""

    def __init__(self, folder: Folder, cache: PanelCache | None) -> None:
        self._folder, self._cache = folder, cache
        self._content, self._error = Content(), None
        self._wanted: dict[str, list[Part]] = defaultdict(list)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = self._learnt = False
        self._left = self._total = 0

    def want(self, parts: Sequence[Part]) -> None:
        """These too."""
        with self._changed:
            for part in parts:
                self._wanted[part.tensor].append(part)
                self._left += self._bytes(part)
                self._total += self._bytes(part)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="own copy", daemon=True)
                self._thread.start()

    def result(self, on_progress: Callable[[int, int], None]) -> Content:
        """All that was wanted; waits for it. ``CheckpointError`` where it cannot be read."""
        with self._changed:
            while self._wanted and self._error is None:
                on_progress(self._total - self._left, self._total)
                self._changed.wait(0.2)
        if self._error is not None:
            raise self._error
        if self._learnt and self._cache is not None:
            remember_content(self._content, self._folder, self._cache)
        return self._content

    def close(self) -> None:
        """Reads no more."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        known: set[str] = set()
        while not self._closed:
            with self._changed:
                if not self._wanted:
                    self._thread = None
                    self._changed.notify_all()
                    return
                name, parts = next(iter(self._wanted.items()))
                parts = list(parts)
            try:
                key = self._folder.file_key(name)
                if self._cache is not None and key and key not in known:
                    known.add(key)
                    self._content.update(self._cache.known(key))
                for part in parts:
                    self._read(part)
            except Exception as error:
                self._error = error
                return
            with self._changed:
                self._left -= sum(self._bytes(part) for part in parts)
                del self._wanted[name][: len(parts)]
                if not self._wanted[name]:
                    del self._wanted[name]
                self._changed.notify_all()

    def _read(self, part: Part) -> None:
        blocks = blocks_of(part.unit, part.along)
        if self._closed or self._content.get(part.tensor, blocks) is not None:
            return
        shape = self._folder.shape(part.tensor)
        rows = Range(start=0, stop=shape[0]) if part.unit.columns else part.rows
        first, sums = sum_rows(self._folder, part.tensor, rows, part.unit)
        self._content.learn(part.tensor, part.unit, shape, first, sums)
        self._learnt = True

    def _bytes(self, part: Part) -> int:
        columns = 1 if part.columns is None else len(part.columns)
        return round(len(part.rows) * columns * self._folder.read_bits(part.tensor) / 8)


def _run(node: int, one: BlockSums) -> _Run:
    try:
        sums = np.frombuffer(bytes.fromhex(one.sums), ">u8").astype(np.uint64)
    except ValueError as error:
        raise ValueError(f"its sums of {one.tensor!r} are none") from error
    blocks = Range(start=one.first, stop=one.first + len(sums))
    return _Run(node=node, file=one.file, blocks=blocks, sums=sums)


def _differ(run: _Run, sums: U64, known: np.ndarray) -> bool:
    some = slice(run.blocks.start, run.blocks.stop)
    return bool(((sums[some] != run.sums) & known[some]).any())


def _meeting(runs: Sequence[_Run]) -> list[tuple[_Run, _Run]]:
    """Pairs of runs that hold a block both, and not the same."""
    found = []
    for index, one in enumerate(runs):
        for other in runs[index + 1 :]:
            start = max(one.blocks.start, other.blocks.start)
            stop = min(one.blocks.stop, other.blocks.stop)
            if start >= stop:
                continue
            a = one.sums[start - one.blocks.start : stop - one.blocks.start]
            b = other.sums[start - other.blocks.start : stop - other.blocks.start]
            if not np.array_equal(a, b):
                found.append((one, other))
    return found
