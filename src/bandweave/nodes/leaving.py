"""Leaving: nodes that were asked to leave their generation, and whether they do.

Knows the messages "left" and "progress"; knows no models and no requests.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Sequence

from bandweave.messages import Left, Progress
from bandweave.nodes.node_handle import NodeHandle

_LEAST_SECONDS = 1.0  # for an answer that needs no work
_LONGER_SECONDS = 0.5  # than the bound for stalls: a node that waits for another gives up by then


class Leaving:
    """One of them, which has been asked just now and had been silent for so many seconds.

    It hangs where it says nothing at all for the bound for stalls, or has not left somewhat later,
    however often it says that it lives; ``loading``: unless it says that it loads.
    """

    def __init__(
        self, handle: NodeHandle, silence: float, stall_seconds: float, loading: bool
    ) -> None:
        self.handle, self._stall_seconds, self._loading = handle, stall_seconds, loading
        self._asked = time.monotonic()
        self._heard = self._asked - silence
        self._limit = self._asked + stall_seconds + _LONGER_SECONDS

    @property
    def deadline(self) -> float:
        """When it hangs, of ``time.monotonic``."""
        silent = max(self._asked + _LEAST_SECONDS, self._heard + self._stall_seconds)
        return min(silent, self._limit)

    def has_left(self) -> bool:
        """By what it has said by now. ``OSError`` where its connection has ended."""
        channel = self.handle.channel
        while channel.poll():
            kind = channel.receive().get("type")
            if kind == Left.TYPE:
                return True
            self._heard = time.monotonic()
            if kind == Progress.TYPE and self._loading:
                self._limit = self._heard + self._stall_seconds + _LONGER_SECONDS
        return False


def await_left(leaving: Sequence[Leaving]) -> tuple[list[NodeHandle], list[NodeHandle]]:
    """Those that leave, and those that hang or have ended, in their order. They are waited for
    together: the end of one that hangs is soon enough for all others."""
    waiting, left = list(leaving), set[NodeHandle]()
    while waiting:
        poll, still = select.poll(), list[Leaving]()
        for one in waiting:
            try:
                if one.has_left():
                    left.add(one.handle)
                elif time.monotonic() < one.deadline:
                    still.append(one)
                    poll.register(one.handle.channel.fileno(), select.POLLIN)
            except OSError:
                continue
        waiting = still
        if waiting:
            seconds = min(one.deadline for one in waiting) - time.monotonic()
            poll.poll(math.ceil(1000 * max(0.0, seconds)))
    handles = [one.handle for one in leaving]
    return (
        [handle for handle in handles if handle in left],
        [handle for handle in handles if handle not in left],
    )
