"""Ctrl-C, SIGTERM and SIGHUP: what they do to a command, and when they may come. Knows signals, no
commands."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# SIGHUP: the terminal was closed, or the connection to it lost.
_POLITE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_ENDING = (signal.SIGINT, *_POLITE)


class Terminated(BaseException):
    """SIGTERM or SIGHUP, which like Ctrl-C leave time to clean up, and are as little an error."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def hear_signals() -> None:
    """From now on the signals that end a command raise, unless whoever started it wants one of them
    ignored, as `nohup` does. Ctrl-C does so already."""
    for number in _POLITE:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def ignore_signals() -> None:
    """From now on nothing changes any more how the command ends."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)  # for those who mean it
    else:
        # A terminal's end is told twice: by the system, and by the shell.
        signal.signal(number, signal.SIG_IGN)
        _leave_terminal()
    raise Terminated(number)


def _leave_terminal() -> None:
    """Opens the null device in the place of every standard stream whose terminal is gone: writing
    there is an error, and whoever cleans up may write."""
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)
                os.close(null)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Keeps signals that end the command until the block is over.

    For imports: extension modules turn an interrupt of theirs into some other error, or swallow it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
