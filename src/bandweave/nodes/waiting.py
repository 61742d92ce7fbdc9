"""Waiting that a signal always ends."""

from __future__ import annotations

import contextlib
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
_LOOK_SECONDS = 0.5


def take(queue: SimpleQueue[T]) -> T:
    """The next entry of ``queue``. Python runs what a signal asks for between two waits: one that
    comes just before an endless wait begins would be heard only with the next entry."""
    while True:
        with contextlib.suppress(Empty):
            return queue.get(timeout=_LOOK_SECONDS)
