"""Standard streams: that descriptors 0, 1 and 2 are open, whoever started this process.

A process that was started without one of them (``>&-``, some service managers) would give its
number to the next file or socket, and what a library writes to standard error would end up there.
"""

from __future__ import annotations

import os
import sys

_MODES = {0: "r", 1: "w", 2: "w"}
_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}


def open_standard_streams() -> None:
    """Opens the null device in the place of every standard stream that is closed: reading finds the
    end at once, and what is written is gone. To be called before anything else is opened."""
    for number, mode in _MODES.items():
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one, since those below it are open by now.
            descriptor = os.open(os.devnull, os.O_RDWR)
            assert descriptor == number
            os.set_inheritable(number, True)
        if getattr(sys, _NAMES[number]) is None:
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, _NAMES[number], stream)
