"""Processes that carry a mark in their environment, so that all of them are found, whoever started
them and whatever they have become (Linux's /proc); and what such processes leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from pathlib import Path

from benchmarks.contestant import ROOT

_MARK = "BANDWEAVE_CHAOS_MARK"
_NODE = b"bandweave.nodes.process"
_SHARED = Path("/dev/shm")
_DUTY_SECONDS = 0.1


class Marked:
    """A folder and an environment of one's own, for commands whose leavings can be told from those
    of others."""

    def __init__(self, holder: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._holder = holder
        self._shared = self._shared_now()
        self.temporary.mkdir(parents=True, exist_ok=True)

    @property
    def temporary(self) -> Path:
        return self._holder / "temporary"

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(self.temporary),
            "HOME": str(self._holder / "home"), "BANDWEAVE_CACHE": "off",
            "BANDWEAVE_PROFILE": "off", "HF_HUB_OFFLINE": "1", _MARK: self._mark,
        }  # fmt: skip
        return {**os.environ, **own}

    def processes(self) -> list[int]:
        """All that run, zombies not counted."""
        wanted = f"{_MARK}={self._mark}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return sorted(pid for pid in pids if wanted in _read(pid, "environ").split(b"\0"))

    def nodes(self) -> list[int]:
        """Those that hold a part of a model."""
        return [pid for pid in self.processes() if _NODE in _read(pid, "cmdline")]

    def end(self) -> None:
        """Kills whatever is left."""
        for pid in self.processes():
            kill(pid, signal.SIGKILL)

    def left_over(self, seconds: float = 5.0) -> list[str]:
        """Sentences on what is still there although all should have ended, after ``seconds`` at
        most."""
        deadline = time.monotonic() + seconds
        while True:
            left = [f"process {pid}: {_words(pid)}" for pid in self.processes()]
            left += [f"file {path}" for path in self._holder.glob("temporary/*")]
            left += [f"shared memory {name}" for name in self._shared_now() - self._shared]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    @staticmethod
    def _shared_now() -> set[str]:
        """Ours have a name there only where the system has no other way."""
        with contextlib.suppress(OSError):
            return {one.name for one in _SHARED.iterdir() if one.name.startswith("bandweave")}
        return set()


class Duty:
    """Stops processes half of the time until it is told to let them go."""

    def __init__(self, pids: list[int]) -> None:
        self._pids, self._over = pids, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in self._pids:
                    kill(pid, number)
                self._over.wait(_DUTY_SECONDS)
        for pid in self._pids:
            kill(pid, signal.SIGCONT)


def kill(pid: int, number: int) -> None:
    """Sends a signal; nothing happens where the process has gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def listeners(port: int, process: int | None = None) -> int:
    """How many sockets listen at a TCP port, in this network or that of ``process``."""
    where = "self" if process is None else str(process)
    rows = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows += Path(f"/proc/{where}/net/{name}").read_text().splitlines()[1:]
    fields = [row.split() for row in rows]
    return sum(one[3] == "0A" and int(one[1].rpartition(":")[2], 16) == port for one in fields)


def _words(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")[:160].strip()


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty where that has ended, zombies included."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
