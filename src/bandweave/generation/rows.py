"""Rows: how a step's rows are shared out between answers that go on and prompts that are read.

The scheduler's rule, which the simulation of a service plays too. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_rows(
    decoding: int,
    prompts: Sequence[tuple[int, int | None]],
    *,
    max_rows: int,
    step: int,
    most: int | None = None,
) -> tuple[int, list[int]]:
    """How many of the ``decoding`` sequences have a row of step number ``step``, and how many
    tokens of each prompt are read.

    A prompt is the number of its tokens that are left, and of a step's prompt tokens at most (None:
    as many as fit), in the order in which they are served; all together have ``most`` rows (None:
    as many as there are). Where there are more sequences than rows, prompts get a quarter of the
    rows; a step of one row serves both in turns.
    """
    rows = max_rows - (max(1, max_rows // 4) if prompts else 0)
    decoding = min(decoding, rows or step % 2)
    room, read, counts = max_rows - decoding, 0, []
    room = room if most is None else min(room, most)
    for left, chunk in prompts:
        fitting = room if chunk is None else min(room, chunk - read)
        counts.append(max(0, min(left, fitting)))
        room, read = room - counts[-1], read + counts[-1]
    return decoding, counts
