"""Waiting for the far side of a socket to go, without reading what it sent before.

Knows poll (Linux) and kqueue (macOS, BSD); knows no messages.
"""

from __future__ import annotations

import math
import select
import time


def wait_hangup(descriptor: int, timeout: float | None = None) -> bool:
    """True once the peer has closed or half-closed its side; False after ``timeout`` seconds.

    Unread data does not hide the end and does not wake the caller early. Returns True too where
    this process has shut the socket down itself.
    """
    if hasattr(select, "POLLRDHUP"):
        return _wait_poll(descriptor, timeout)
    return _wait_kqueue(descriptor, timeout)


def _wait_poll(descriptor: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)  # POLLHUP and POLLERR come unasked
    return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))


def _wait_kqueue(descriptor: int, timeout: float | None) -> bool:
    api = vars(select)  # the names exist on BSD and macOS only
    deadline = None if timeout is None else time.monotonic() + timeout
    queue = api["kqueue"]()
    try:
        # EV_CLEAR: data that nobody reads wakes this loop once, not for ever.
        event = api["kevent"](
            descriptor, api["KQ_FILTER_READ"], api["KQ_EV_ADD"] | api["KQ_EV_CLEAR"]
        )
        queue.control([event], 0, 0)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = queue.control(None, 1, left)
            if any(entry.flags & (api["KQ_EV_EOF"] | api["KQ_EV_ERROR"]) for entry in found):
                return True
            if left == 0.0:
                return False
    finally:
        queue.close()
