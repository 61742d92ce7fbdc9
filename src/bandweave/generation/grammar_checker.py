"""GrammarChecker: asks a process whether grammars can be used, and keeps it for the next one.

The process is started for the first grammar. It ends when nobody has asked for a while, when an
answer does not come, and with this process, for then its socket is closed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from bandweave.address_space import ADDRESS_SPACE

_PROGRAM = Path(__file__).with_name("grammar_check.py")
_WALL_SECONDS = 30.0  # on a machine that is busy
_IDLE_SECONDS = 60.0


class GrammarChecker:
    """For any thread; one check at a time."""

    def __init__(self, *, wall: float = _WALL_SECONDS, idle: float = _IDLE_SECONDS) -> None:
        """``wall``: seconds until an answer must have come; ``idle``: for which the process is
        kept."""
        self._wall, self._idle = wall, idle
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._checks = 0

    def check(self, grammar: str) -> str:
        """What is wrong with a grammar, in one line; empty where it can be used. It has no tokens
        of its own: names of them are texts here. Takes milliseconds, a second at most.
        ``TimeoutError`` where a busy machine has not found out in time."""
        content = grammar.encode()
        with self._lock:
            self._checks += 1
            try:
                broken, said = self._ask(content)
            except TimeoutError as error:  # which says nothing of the grammar
                self._end()
                raise TimeoutError("grammars cannot be checked: the machine is too busy") from error
            except OSError as error:
                self._end()
                raise RuntimeError(f"grammars cannot be checked: {error}") from error
            self._end_later(self._checks)
        if broken:
            raise RuntimeError(f"grammars cannot be checked: {said}")
        return said

    @property
    def process(self) -> int | None:
        """The number of the process that is kept; None where there is none."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """Ends the process. The next check starts another."""
        with self._lock:
            self._end()

    def _ask(self, content: bytes) -> tuple[bool, str]:
        kept = self._process is not None
        try:
            return self._exchange(content)
        except ConnectionError:
            if not kept:
                raise
            self._end()  # it was ended from outside since the last one
            return self._exchange(content)

    def _exchange(self, content: bytes) -> tuple[bool, str]:
        link = self._link or self._start()
        link.sendall(len(content).to_bytes(4, "little") + content)
        head = _receive(link, 5)
        return head[0] == 1, _receive(link, int.from_bytes(head[1:], "little")).decode()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with ADDRESS_SPACE:
                    self._process = subprocess.Popen(
                        [sys.executable, "-P", str(_PROGRAM)],
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,  # to end it with what it divides into
                    )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(self._wall)
        self._link = ours
        return ours

    def _end_later(self, check: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._idle, self._end_behind, (check,))
        self._timer.daemon = True
        self._timer.start()

    def _end_behind(self, check: int) -> None:
        """Ends the process, unless somebody has asked since."""
        with self._lock:
            if self._checks == check:
                self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        process, link = self._process, self._link
        self._process = self._link = self._timer = None
        if link is not None:
            link.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _receive(link: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = link.recv(size - len(content))
        if not piece:
            raise ConnectionError("the process that checks them has ended")
        content += piece
    return content


_CHECKER = GrammarChecker()


def check_grammar(grammar: str) -> str:
    """As ``GrammarChecker.check``, by one that all share."""
    return _CHECKER.check(grammar)
