"""Reads what a node would of a model, and keeps nothing: so that what is elsewhere comes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.program import Part
from bandweave.programs.split import make_split
from bandweave.ranges import Range

_THREADS = 4
_PIECE_BYTES = 16 << 20


def read_share(
    folder: Folder,
    rank: int,
    nodes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Reads the share of node ``rank`` of so many equal ones; its bytes, as stored. ``ValueError``
    for a model that cannot be split so."""
    split = make_split(folder.spec, (Fraction(1),) * nodes)
    program = lower(build_graph(folder.spec), split, rank)
    parts = [part for weight in program.weights.values() for part in weight.parts]
    parts += [part for vector in program.vectors.values() for part in vector.parts]
    parts += [] if program.embedding is None else [program.embedding]
    pieces = [piece for part in parts for piece in _pieces(folder, part)]
    total, done = sum(_bytes(piece, folder) for piece in pieces), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        tasks = {
            pool.submit(folder.read, one.tensor, one.rows, one.columns): _bytes(one, folder)
            for one in pieces
        }
        try:
            for task in as_completed(tasks):
                task.result()
                done += tasks.pop(task)
                on_progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def _bytes(part: Part, folder: Folder) -> int:
    """Of the checkpoint, rounded."""
    columns = 1 if part.columns is None else len(part.columns)
    return round(len(part.rows) * columns * folder.item_bits(part.tensor) / 8)


def _pieces(folder: Folder, part: Part) -> Iterator[Part]:
    """A part in pieces that memory has room for."""
    if part.columns is None:
        yield part
        return
    row = max(1, round(len(part.columns) * folder.item_bits(part.tensor) / 8))
    count = max(1, _PIECE_BYTES // row)
    for start in range(part.rows.start, part.rows.stop, count):
        rows = Range(start=start, stop=min(start + count, part.rows.stop))
        yield replace(part, rows=rows)
