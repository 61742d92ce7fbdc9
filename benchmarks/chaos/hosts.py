"""Machines of their own: network namespaces on one switch, a worker on each, and a server that is
on none of them.

Needs root, iproute2 and nftables. Knows networks and processes; knows no requests.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bandweave.handshake.secret import make_secret
from benchmarks.chaos.cluster import Server, serve_command
from benchmarks.chaos.faults import MACHINE, PROCESS, Blow
from benchmarks.chaos.namespace import inside
from benchmarks.chaos.processes import Duty, Marked, kill
from benchmarks.chaos.questions import demo_with_tools
from benchmarks.contestant import ROOT

_PORT = 7000
_START_SECONDS = 60.0
_DRIP = "limit rate over 2 kbytes/second drop"
#: By kind of fault: the hooks of the packet filter that stop what passes there, and how.
_CUTS = {"cut": ("input", "output"), "cut in": ("input",), "cut out": ("output",),
         "drip": ("input", "output")}  # fmt: skip


def why_not() -> str:
    """Why this machine has no networks of one's own; empty where it has."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} missing: install iproute2 and nftables"
    name = f"bw{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this system allows no network namespaces"
    _run("ip", "netns", "del", name)
    return ""


class Switch:
    """``count`` machines and one more, the last, on a switch; machine n is 10.213.20.(n + 1)."""

    def __init__(self, count: int) -> None:
        tag = f"bw{secrets.token_hex(3)}"
        self.names = [f"{tag}{number}" for number in range(count + 1)]
        self._switch = f"{tag}s"
        _run("ip", "netns", "add", self._switch)
        try:
            self._join(tag)
        except BaseException:
            self.close()
            raise

    def _join(self, tag: str) -> None:
        inside = ("ip", "-n", self._switch)
        _run(*inside, "link", "add", "switch", "type", "bridge")
        _run(*inside, "link", "set", "switch", "up")
        for number, name in enumerate(self.names):
            _run("ip", "netns", "add", name)
            port = f"{tag}{number}p"
            _run(*inside, "link", "add", port, "type", "veth", "peer", "name", "net0",
                 "netns", name)  # fmt: skip
            _run(*inside, "link", "set", port, "master", "switch", "up")
            own = ("ip", "-n", name)
            _run(*own, "addr", "add", f"{self.address(number)}/24", "dev", "net0")
            for interface in ("net0", "lo"):
                _run(*own, "link", "set", interface, "up")
            self.run(number, "nft", "add table inet chaos")

    @staticmethod
    def address(number: int) -> str:
        return f"10.213.20.{number + 1}"

    def prefix(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[number]]

    def run(self, number: int, *command: str) -> None:
        _run(*self.prefix(number), *command)

    def block(self, number: int, kind: str) -> None:
        for hook in _CUTS[kind]:
            chain = f"inet chaos {hook}"
            self.run(number, "nft", f"add chain {chain} {{ type filter hook {hook} priority 0; }}")
            side = "iif" if hook == "input" else "oif"
            verdict = _DRIP if kind == "drip" else "drop"
            self.run(number, "nft", f"add rule {chain} {side} lo accept")
            self.run(number, "nft", f"add rule {chain} {verdict}")

    def mend(self, number: int) -> None:
        for hook in ("input", "output"):
            words = [*self.prefix(number), "nft", f"delete chain inet chaos {hook}"]
            subprocess.run(words, capture_output=True, check=False)

    def close(self) -> None:
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class HostCluster:
    """``count`` machines with a worker each; the server is on one more."""

    kinds: Sequence[str] = (*PROCESS, *MACHINE)
    anew = False

    def __init__(self, holder: Path, count: int, model: str, options: Sequence[str]) -> None:
        self.count = count
        self._marked, self._holder = Marked(holder), holder
        self._token = holder / "token"
        self._token.write_bytes(make_secret() + b"\n")
        self._token.chmod(0o600)
        self.switch = Switch(count)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._duties: dict[Blow, Duty] = {}
        self._stopped: dict[Blow, list[int]] = {}
        try:
            for number in range(count):
                self._start_worker(number)
            hosts = ",".join(f"{self.switch.address(number)}:{_PORT}" for number in range(count))
            words = ["--hosts", hosts, "--token-file", str(self._token), *options]
            self._server = Server(serve_command(model, words), self._marked,
                                  self.switch.prefix(count))  # fmt: skip
        except BaseException:
            self._marked.end()
            self.switch.close()
            raise
        self.port, self.process = self._server.port, self._server.process.pid

    def _start_worker(self, number: int) -> None:
        command = [
            *self.switch.prefix(number), sys.executable, "-m", "bandweave", "worker", "--listen",
            f"{self.switch.address(number)}:{_PORT}", "--token-file", str(self._token),
            "--threads", "1",
        ]  # fmt: skip
        log = self._holder / f"worker-{number}.log"
        with log.open("w") as file:
            worker = subprocess.Popen(
                command, cwd=ROOT, env=self._marked.environment, start_new_session=True,
                stderr=file,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while "listening on " not in log.read_text():
            if worker.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"worker {number} does not listen: {log.read_text()}")
            time.sleep(0.05)
        self._workers[number] = worker

    def nodes(self) -> int:
        return len(self._marked.nodes())

    def log(self) -> str:
        return self._server.log()

    def inside(self, function: Callable[[], Any]) -> Any:
        """What a function gives on the server's machine, in a thread of its own."""
        return inside(self.switch.names[self.count], function)

    def strike(self, blow: Blow) -> None:
        worker = self._workers[blow.node].pid
        pids = self._on(worker)
        if blow.kind == "kill":
            for pid in pids:
                kill(pid, signal.SIGKILL)
        elif blow.kind == "power":
            # Packets stop first: a machine without power sends no resets.
            self.switch.block(blow.node, "cut")
            for pid in (worker, *pids):
                kill(pid, signal.SIGKILL)
            self._workers[blow.node].wait(10)
        elif blow.kind == "stop":
            self._stopped[blow] = [worker, *pids]
            for pid in self._stopped[blow]:
                kill(pid, signal.SIGSTOP)
        elif blow.kind == "slow":
            self._duties[blow] = Duty(pids)
        else:
            self.switch.block(blow.node, blow.kind)

    def undo(self, blow: Blow) -> None:
        self.switch.mend(blow.node)
        if blow.kind == "power":
            self._start_worker(blow.node)
        for pid in self._stopped.pop(blow, []):
            kill(pid, signal.SIGCONT)
        if blow in self._duties:
            self._duties.pop(blow).end()

    def _on(self, worker: int) -> list[int]:
        """The processes of nodes below a worker."""
        nodes = set(self._marked.nodes())
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{worker}/task").iterdir():
                below = {int(word) for word in (task / "children").read_text().split()}
                if found := below & nodes:
                    return sorted(found)
        return []

    def stop(self) -> list[str]:
        try:
            left = self._server.end()
            deadline = time.monotonic() + 10  # workers end their sessions' processes
            while self._marked.nodes() and time.monotonic() < deadline:
                time.sleep(0.1)
            left += [f"node {pid} outlives the server" for pid in self._marked.nodes()]
            for number, worker in self._workers.items():
                left += self._end_worker(number, worker)
            for number in range(self.count + 1):
                left += self._ports(number)
            return left + self._marked.left_over()
        finally:
            self._marked.end()
            self._server.close()
            for worker in self._workers.values():
                worker.wait(10)
            self.switch.close()

    def _end_worker(self, number: int, worker: subprocess.Popen[bytes]) -> list[str]:
        if worker.poll() is not None:
            return [f"worker {number} ended by itself, with status {worker.returncode}"]
        worker.send_signal(signal.SIGINT)
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            return [f"worker {number} does not end"]
        return []

    def _ports(self, number: int) -> list[str]:
        listing = subprocess.run([*self.switch.prefix(number), "ss", "-Hltn"], text=True,
                                 capture_output=True, check=False).stdout  # fmt: skip
        return [f"machine {number} listens: {line.split()[3]}" for line in listing.splitlines()]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode().strip()}")


@contextlib.contextmanager
def started(count: int, model: str, options: Sequence[str]) -> Iterator[HostCluster]:
    """A server on so many machines. ``model``: "demo" has a template that knows tools then."""
    with tempfile.TemporaryDirectory() as folder:
        holder = Path(folder)
        found = str(demo_with_tools(holder)) if model == "demo" else model
        cluster = HostCluster(holder, count, found, options)
        try:
            yield cluster
        finally:
            cluster.stop()
