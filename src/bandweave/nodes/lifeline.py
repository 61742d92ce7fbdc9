"""Lifeline: a node's process ends when the process or the controller that it works for is gone.

Runs inside the node. Knows sockets and signals, not what the node does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time

from bandweave.mesh.hangup import wait_hangup

HANGUP_STATUS = 3  # the exit status of a process whose controller went away
_GRACE_SECONDS = 0.3  # for the main thread to see the end by itself and clean up
_PR_SET_PDEATHSIG = 1


class Lifeline:
    """Watches sockets from threads of its own and ends the process when a far side goes.

    Works while the main thread is inside a native call, as long as that has released the GIL.
    """

    def __init__(self) -> None:
        self._over = False

    def watch(self, descriptor: int) -> None:
        """Ends the process soon after the far side of this socket has closed it."""
        own = os.dup(descriptor)  # the original may be closed, and its number used again
        thread = threading.Thread(target=self._wait, args=(own,), name="lifeline", daemon=True)
        thread.start()

    def finish(self, status: int, *, within: float) -> None:
        """The node is ending by itself: sockets may close now, but the process ends with
        ``status`` after ``within`` seconds whatever still runs in it."""
        self._over = True
        timer = threading.Timer(within, os._exit, args=(status,))
        timer.daemon = True
        timer.start()

    def _wait(self, descriptor: int) -> None:
        wait_hangup(descriptor)
        time.sleep(_GRACE_SECONDS)
        if not self._over:
            os._exit(HANGUP_STATUS)


def die_with_parent(parent: int) -> None:
    """Ends this process when its parent ends; at once where that has gone already. ``parent`` is
    the process id expected of it.

    Linux: the kernel kills this process, even while native code holds the GIL, when the thread that
    started it ends. macOS: a thread waits for the parent's end. Other systems: nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(HANGUP_STATUS)
    elif hasattr(select, "kqueue"):
        thread = threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True)
        thread.start()


def _end_with(parent: int) -> None:
    """Ends this process once ``parent`` is no more."""
    api = vars(select)  # the names exist on BSD and macOS only
    queue = api["kqueue"]()
    event = api["kevent"](
        parent,
        filter=api["KQ_FILTER_PROC"],
        flags=api["KQ_EV_ADD"] | api["KQ_EV_ONESHOT"],
        fflags=api["KQ_NOTE_EXIT"],
    )
    try:
        queue.control([event], 0, 0)
        # The number may be another process's by now, which would be waited for instead.
        if os.getppid() == parent:
            queue.control(None, 1, None)
    except ProcessLookupError:
        pass
    os._exit(HANGUP_STATUS)
