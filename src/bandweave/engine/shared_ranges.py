"""Which bytes of a model's files several nodes of a stage read, each for its own share."""

from __future__ import annotations

from collections import defaultdict

from bandweave.checkpoints.folder import Folder
from bandweave.programs.program import Part, Program


def shared_ranges(folder: Folder, program: Program) -> dict[str, list[tuple[int, int]]]:
    """By file: the tensors of which this node reads columns, whose rows the others read too, and
    those of which it reads all, as the others do. The embedding is node 0's alone."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for part in program.parts():
        if part is not program.embedding and _is_shared(part, folder.shape(part.tensor)):
            for name, start, stop in folder.places(part.tensor):
                found[name].add((start, stop))
    return {name: _merged(sorted(ranges)) for name, ranges in found.items()}


def _is_shared(part: Part, shape: tuple[int, ...]) -> bool:
    """Whether a part is anything but rows of its own."""
    own_rows = len(part.rows) < shape[0]
    all_columns = part.columns is None or len(part.columns) == shape[-1]
    return not (own_rows and all_columns)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged
