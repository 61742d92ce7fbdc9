"""Runs the ``bandweave`` command as users do, and finds the processes that it started.

Every command carries a mark in its environment, which its nodes inherit: so what is left of it can
be found, whatever else runs on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
MARK = "BANDWEAVE_TEST_MARK"
_NODE = b"bandweave.nodes.process"
SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


class Command:
    """A command under way; ``start_command`` makes one."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self.process, self._mark = process, mark

    def processes(self) -> list[int]:
        """The ids of all processes of the command that run, but for the command's own."""
        return [pid for pid in marked(self._mark) if pid != self.process.pid]

    def nodes(self) -> list[int]:
        """Those of them that are nodes."""
        return [pid for pid in self.processes() if _NODE in _read(pid, "cmdline")]

    def wait_output(self, stream: IO[bytes] | None, count: int = 1) -> bytes:
        """Blocks until that many bytes have come."""
        assert stream is not None
        return stream.read(count)

    def none_left(self, seconds: float = 3.0) -> bool:
        """Whether all other processes end within that time."""
        deadline = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def finish(self, timeout: float = SECONDS) -> Outcome:
        """Waits for the command's end."""
        start = time.monotonic()
        out, err = self.process.communicate(timeout=timeout)
        return Outcome(
            status=self.process.returncode,
            out=out.decode(),
            err=err.decode(),
            seconds=time.monotonic() - start,
        )


def sentence(outcome: Outcome, status: int = 2) -> str:
    """What a command that failed said: one line of standard error, and nothing else anywhere."""
    assert (outcome.status, outcome.out) == (status, ""), outcome
    (line,) = lines_of(outcome.err)
    assert line.startswith("bandweave: ")
    return line.removeprefix("bandweave: ")


def environment(mark: str) -> dict[str, str]:
    """For a command from this source tree."""
    own = {"PYTHONPATH": str(SOURCE), "COLUMNS": "80", "BANDWEAVE_PROFILE": "off", MARK: mark}
    return {**os.environ, **own}


@contextlib.contextmanager
def start_command(*arguments: str | Path, **variables: str) -> Iterator[Command]:
    """Starts a command; whatever is left of it at the end is killed."""
    with _start(arguments, variables, subprocess.PIPE) as command:
        yield command


@contextlib.contextmanager
def _start(
    arguments: Sequence[str | Path],
    variables: dict[str, str],
    streams: int,
    in_child: Callable[[], None] | None = None,
) -> Iterator[Command]:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "bandweave", *map(str, arguments)],
        bufsize=0,
        env={**environment(mark), **variables},
        start_new_session=True,
        preexec_fn=in_child,
        stdin=streams,
        stdout=streams,
        stderr=streams,
    )
    with process:
        try:
            yield Command(process, mark)
        finally:
            for pid in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Terminal:
    """A command that believes to talk with people."""

    def __init__(self, command: Command, master: int) -> None:
        self.command, self._master = command, master
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for(self, text: bytes) -> None:
        """Blocks until the text has been shown, and forgets what came up to its end."""
        while text not in self.seen:
            self._read()
        self.seen = self.seen.partition(text)[2]

    def wait_bytes(self, count: int) -> None:
        """Blocks until so much was shown after the text last waited for, and forgets it."""
        while len(self.seen) < count:
            self._read()
        self.seen = b""

    def rest(self) -> bytes:
        """All that is shown up to the command's end."""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while True:
                self._read()
        self.command.process.wait(SECONDS)
        return self.seen

    def _read(self) -> None:
        if not select.select([self._master], [], [], SECONDS)[0]:
            raise TimeoutError(f"nothing more came after {self.seen[-500:]!r}")
        self.seen += os.read(self._master, 4096)


@contextlib.contextmanager
def start_on_terminal(*arguments: str | Path, **variables: str) -> Iterator[Terminal]:
    """Starts a command on a terminal of its own, where Ctrl-C is a key."""
    master, slave = os.openpty()
    try:
        with _start(arguments, variables, slave, _take_terminal) as command:
            os.close(slave)
            yield Terminal(command, master)
    finally:
        os.close(master)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def bandweave(*arguments: str | Path, text: str | bytes = b"", **variables: str) -> Outcome:
    """Runs a command to its end, with ``text`` on its standard input; nothing of it may be left."""
    with start_command(*arguments, **variables) as command:
        start = time.monotonic()
        given = text.encode() if isinstance(text, str) else text
        out, err = command.process.communicate(given, timeout=SECONDS)
        seconds = time.monotonic() - start
        assert command.none_left(), "the command left processes behind"
    assert "Traceback" not in err.decode() or "BANDWEAVE_DEBUG" in variables, err.decode()
    return Outcome(
        status=command.process.returncode, out=out.decode(), err=err.decode(), seconds=seconds
    )


def marked(mark: str) -> list[int]:
    """The ids of all processes whose environment has that mark."""
    wanted = f"{MARK}={mark}".encode()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if wanted in _read(pid, "environ").split(b"\0")]


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty where that has ended, zombies included."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def lines_of(errors: str) -> Sequence[str]:
    """What was written on standard error, without empty lines."""
    return [line for line in errors.splitlines() if line.strip()]
