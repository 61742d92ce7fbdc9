"""Workers in processes of their own, and what is asked of the nodes that they run."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.node_handle import NodeHandle
from tests.helpers.connections import SECRET

STUBS = "tests.helpers.node_stubs"
ROOT = Path(__file__).parent.parent.parent
# Before a command: starts it without standard input, output and error.
CLOSED = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")


def child_environment() -> dict[str, str]:
    """The environment with the paths that this process imports from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def gone(pid: int) -> bool:
    """Whether no process, not even a zombie, has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def all_gone(pids: list[int], seconds: float = 2.0) -> bool:
    """Whether the processes, children of others, end within ``seconds``; zombies that their
    adopter has yet to collect count as gone."""

    def ended(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return gone(pid)

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(ended(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def ask(handle: NodeHandle, **message: Any) -> dict[str, Any]:
    handle.channel.send(message)
    return handle.channel.receive(10)


def pids_of(handles: list[NodeHandle]) -> list[int]:
    return [ask(handle, type="describe")["pid"] for handle in handles]


def check_mesh(handles: list[NodeHandle], *, sharing: bool = True) -> None:
    """All nodes reach each other at the addresses of their handles, and all share memory or none
    do."""
    for handle in handles:
        handle.channel.send({"type": "mesh", "addresses": [h.address for h in handles]})
    for handle in handles:
        message = handle.channel.receive(10)
        others = [other.node for other in handles if other is not handle]
        assert message["type"] == "met", message
        assert message["heard"] == {str(node): node for node in others}
        assert message["sharing"] == (others if sharing else [])


class WorkerProcess:
    """A worker in a process of its own, as the command line runs it."""

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        prefix: tuple[str, ...] = (),
        stderr: int = subprocess.PIPE,
        code: str = "",
        **options: Any,
    ) -> None:
        """``stderr``: where its log goes, in which case ``listen`` names its port; ``code``: what
        it runs instead of a worker with ``options``."""
        options = {"serve": f"{STUBS}:serve", **options}
        code = code or (
            "from bandweave.cli.standard_streams import open_standard_streams\n"
            "open_standard_streams()\n"
            "from bandweave.nodes.worker import run_worker\n"
            f"run_worker({listen!r}, {SECRET!r}, **{options!r})\n"
        )
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code],
            cwd=ROOT,
            env=child_environment(),
            stderr=stderr,
            start_new_session=True,
            text=True,
        )
        self.lines: list[str] = []
        self.address = listen if stderr >= 0 else self.read(r"listening on (\S+)")

    def read(self, pattern: str) -> str:
        """Reads the worker's output up to a line that fits, and what its group holds."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found[found.re.groups]
        raise AssertionError("".join(self.lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def hosts(*workers: WorkerProcess, **options: Any) -> HostLauncher:
    return HostLauncher([worker.address for worker in workers], SECRET, **options)


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    yield port


def listening(pid: int) -> int:
    """How many ports a process listens at."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(entry))
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in inodes for row in rows)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def processor_seconds(pid: int) -> float:
    """What a process has used so far, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
