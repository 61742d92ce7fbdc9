"""Clusters that faults can happen to: a server of a model on nodes of this machine.

``LocalCluster`` has its nodes as processes of the server's own machine, which can be killed,
stopped and slowed. ``hosts.py`` has one with machines of their own. Knows processes; knows no
requests.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.chaos.faults import PROCESS, Blow, Target
from benchmarks.chaos.processes import Duty, Marked, kill, listeners
from benchmarks.chaos.questions import demo_with_tools
from benchmarks.contestant import ROOT


class Cluster(Target, Protocol):
    """``port``: of the server, at 127.0.0.1 where ``inside`` runs things; ``process``: its own;
    ``kinds``: of faults that can happen to it."""

    @property
    def port(self) -> int: ...
    @property
    def process(self) -> int: ...
    @property
    def kinds(self) -> Sequence[str]: ...
    @property
    def anew(self) -> bool:
        """Whether nodes that die are started again at once."""
        ...

    def nodes(self) -> int:
        """How many nodes' processes there are now."""
        ...

    def log(self) -> str:
        """What the server has said."""
        ...

    def stop(self) -> list[str]:
        """Ends all as a user does, and says what is left over."""
        ...


class LocalCluster:
    """``count`` nodes as processes of this machine."""

    kinds: Sequence[str] = PROCESS
    anew = True

    def __init__(self, holder: Path, count: int, model: str, options: Sequence[str]) -> None:
        self.count = count
        self._marked = Marked(holder)
        self._duties: dict[Blow, Duty] = {}
        self._stopped: dict[Blow, int] = {}
        command = serve_command(model, ["--nodes", str(count), *options])
        self._server = Server(command, self._marked)
        self.port, self.process = self._server.port, self._server.process.pid

    def nodes(self) -> int:
        return len(self._marked.nodes())

    def log(self) -> str:
        return self._server.log()

    def strike(self, blow: Blow) -> None:
        pids = self._marked.nodes()
        if not pids:
            return
        pid = pids[blow.node % len(pids)]
        if blow.kind == "kill":
            kill(pid, signal.SIGKILL)
        elif blow.kind == "stop":
            self._stopped[blow] = pid
            kill(pid, signal.SIGSTOP)
        else:
            self._duties[blow] = Duty([pid])

    def undo(self, blow: Blow) -> None:
        if blow in self._stopped:
            kill(self._stopped.pop(blow), signal.SIGCONT)
        if blow in self._duties:
            self._duties.pop(blow).end()

    def stop(self) -> list[str]:
        try:
            left = self._server.end()
            if listeners(self.port):
                left.append(f"port {self.port} is listened at")
            return left + self._marked.left_over()
        finally:
            self._marked.end()
            self._server.close()


class Server:
    """``bandweave serve``, which has said that it is ready."""

    def __init__(self, command: Sequence[str], marked: Marked, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, *command], cwd=ROOT, env=marked.environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            if not line:
                self.process.wait(10)
                self.close()
                raise RuntimeError(f"the server did not start: {self.log()}")
            said += line
        self.port = urlsplit(json.loads(said)["base_url"]).port or 0

    def log(self) -> str:
        return "".join(self._lines)

    def close(self) -> None:
        """Once it has ended."""
        self.process.wait(10)
        self._reader.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def end(self, seconds: float = 20.0) -> list[str]:
        """As a user ends it. What went wrong about that."""
        if self.process.poll() is not None:
            return [f"the server ended by itself, with status {self.process.returncode}"]
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return [f"the server did not end within {seconds:g} s of Ctrl-C"]
        self._reader.join(5)
        left = [] if status == 130 else [f"the server ended with status {status}"]
        return left + (["the server printed a traceback"] if "Traceback" in self.log() else [])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # it was closed
            for line in self.process.stderr:
                self._lines.append(line)


def serve_command(model: str, options: Sequence[str]) -> list[str]:
    return [
        sys.executable, "-m", "bandweave", "serve", model, "--listen", "127.0.0.1:0",
        "--any-model", "--queue", "0", "--json", *options,
    ]  # fmt: skip


@contextlib.contextmanager
def started(nodes: int, model: str, options: Sequence[str]) -> Iterator[LocalCluster]:
    """A server on so many local nodes. ``model``: "demo" has a template that knows tools then."""
    with tempfile.TemporaryDirectory() as folder:
        holder = Path(folder)
        found = str(demo_with_tools(holder)) if model == "demo" else model
        cluster = LocalCluster(holder, nodes, found, options)
        try:
            yield cluster
        finally:
            cluster.stop()
