"""Blows: the ways in which commands are ended, and the exit statuses that follow from each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(kw_only=True)
class Ends:
    """Our ends of a command: its number, the reading end of its output where that is a pipe, our
    side of its terminal where it has one, the writing end of its input. -1: none."""

    pid: int
    output: int = -1
    terminal: int = -1
    input: int = -1

    def close(self, name: str) -> None:
        """Closes one of them; none where it is closed."""
        descriptor = getattr(self, name)
        setattr(self, name, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def close_all(self) -> None:
        for name in ("output", "terminal", "input"):
            self.close(name)


@dataclass(frozen=True, kw_only=True)
class Blow:
    """``statuses``: with which a command exits that has time to; ``killed``: that of one which has
    not (as `subprocess` shows it), or None. ``ends``: whether commands that last end, too.
    ``tidy``: whether it can clean up. ``terminal``, ``pipe``, ``input``: whether it is about the
    command's terminal, its output, its input."""

    name: str
    strike: Callable[[Ends], None]
    statuses: tuple[int, ...]
    killed: int | None = None
    ends: bool = True
    tidy: bool = True
    terminal: bool = False
    pipe: bool = False
    input: bool = False


def _send(*numbers: signal.Signals, pause: float = 0.0) -> Callable[[Ends], None]:
    def strike(ends: Ends) -> None:
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(ends.pid, number)
            time.sleep(pause)

    return strike


def _type(keys: bytes) -> Callable[[Ends], None]:
    def strike(ends: Ends) -> None:
        with suppress(OSError):
            os.write(ends.terminal, keys)

    return strike


BLOWS = (
    Blow(name="INT", strike=_send(signal.SIGINT), statuses=(130,), killed=-signal.SIGINT),
    Blow(name="TERM", strike=_send(signal.SIGTERM), statuses=(143,), killed=-signal.SIGTERM),
    Blow(name="HUP", strike=_send(signal.SIGHUP), statuses=(129,), killed=-signal.SIGHUP),
    Blow(name="INT-INT", strike=_send(signal.SIGINT, signal.SIGINT, pause=0.05), statuses=(130,),
         killed=-signal.SIGINT),
    Blow(name="TERM-INT", strike=_send(signal.SIGTERM, signal.SIGINT, pause=0.02),
         statuses=(143, 130), killed=-signal.SIGTERM),
    Blow(name="KILL", strike=_send(signal.SIGKILL), statuses=(137,), killed=-signal.SIGKILL,
         tidy=False),
    Blow(name="hang-up", strike=lambda ends: ends.close("terminal"), statuses=(129,),
         killed=-signal.SIGHUP, terminal=True),
    Blow(name="key", strike=_type(b"\x03"), statuses=(130,), killed=-signal.SIGINT, terminal=True),
    Blow(name="no-reader", strike=lambda ends: ends.close("output"), statuses=(141,), ends=False,
         pipe=True),
    Blow(name="no-input", strike=lambda ends: ends.close("input"), statuses=(0,), input=True),
)  # fmt: skip
