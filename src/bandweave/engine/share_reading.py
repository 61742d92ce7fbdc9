"""Reads what a node would of a model, and keeps nothing: so that what is elsewhere comes here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.weights.panel_work import row_pieces, stored_bytes

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
    pieces = [piece for part in program.parts() for piece in row_pieces(part, folder, _PIECE_BYTES)]
    total, done = sum(stored_bytes(piece, folder) for piece in pieces), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        tasks = {
            pool.submit(folder.read, one.tensor, one.rows, one.columns): stored_bytes(one, folder)
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
