"""LocalLauncher: nodes as processes of this machine. Knows no models and no steps."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from bandweave.handshake.secret import make_secret
from bandweave.mesh.address import Address, bind
from bandweave.mesh.channel import Channel
from bandweave.nodes.launcher import START_TIMEOUT, Candidate, Launcher, LaunchError
from bandweave.nodes.node_handle import NodeHandle
from bandweave.nodes.process import SERVE
from bandweave.nodes.spawn import NodeSettings, Tail, describe_end, end_process, spawn

_ENDING_SECONDS = (1.0, 1.0, 1.0)


class ProcessHandle(NodeHandle):
    """A node that is a child process of this one."""

    def __init__(
        self, *, node: int, process: subprocess.Popen[bytes], channel: Channel, address: Address
    ) -> None:
        name = f"node {node} (pid {process.pid})"
        super().__init__(node=node, name=name, channel=channel, address=address)
        self.pid = process.pid
        self._process = process
        assert process.stdout is not None
        self._tail = Tail(process.stdout)

    def alive(self) -> bool:
        return self._process.poll() is None

    def exit_reason(self) -> str | None:
        """Waits up to half a second for the process's last words, which are part of the reason but
        where it could not know of its end."""
        status = self._process.poll()
        if status is None:
            return None
        if status == -signal.SIGKILL:
            return describe_end(status)
        words = self._tail.lines()
        return describe_end(status) + (f"; its last words: {words[-1]}" if words else "")

    def output(self) -> list[str]:
        """The last lines that the process wrote, up to 64 KB."""
        return self._tail.lines()

    def wait(self, timeout: float | None = None) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            return True
        return False

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        super().close()
        self._tail.lines()


class LocalLauncher(Launcher):
    """Nodes as processes of this machine, which find each other on 127.0.0.1.

    They end with this process, however it ends. ``threads_per_node`` and ``cache``, the folder for
    packed weights, are passed on to the nodes.
    """

    def __init__(
        self,
        threads_per_node: int | None = None,
        python: str = sys.executable,
        *,
        cache: str = "",
        serve: str = SERVE,
        start_timeout: float = START_TIMEOUT,
        spare: int = 0,
    ) -> None:
        """``spare``: processes that are candidates beside the nodes that are started."""
        super().__init__(make_secret(), start_timeout=start_timeout)
        self._threads, self._python, self._serve = threads_per_node, python, serve
        self._cache, self._spare = cache, spare
        self._num_nodes = 0

    def _launch(self, num_nodes: int) -> None:
        self._num_nodes = num_nodes
        for node in range(num_nodes):
            self._handles.append(self._spawn(node))

    def candidates(self) -> Sequence[Candidate]:
        """A process for each that has died."""
        with self._changing:
            there = {handle.node for handle in self._handles}
        return [
            Candidate(node=node, name=f"node {node} (a new process)")
            for node in range(self._num_nodes + self._spare)
            if node not in there
        ]

    def _admit(self, candidate: Candidate, timeout: float) -> NodeHandle:
        return self._spawn(candidate.node)

    def _spawn(self, node: int) -> ProcessHandle:
        # Bound here, so that every address is known before any node runs.
        with bind(("127.0.0.1", 0)) as listening:
            address = ("127.0.0.1", listening.getsockname()[1])
            settings = NodeSettings(
                name=f"node {node}",
                node=node,
                session=self.session,
                secret=self.secret,
                address=address,
                threads=self._threads,
                cache=self._cache,
            )
            process, channel = spawn(
                settings, listening=listening, python=self._python, serve=self._serve
            )
        try:
            return ProcessHandle(node=node, process=process, channel=channel, address=address)
        except RuntimeError as error:  # no thread to read its output
            channel.close()
            end_process(process, _ENDING_SECONDS)
            raise LaunchError(f"node {node} did not start: {error}") from error
