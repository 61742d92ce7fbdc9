"""Launchers: nodes as processes of this machine, as workers on named hosts, as threads for tests.

Knows how nodes start and end; knows no models and no steps.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import Hello
from bandweave.handshake.secret import make_secret
from bandweave.mesh.address import Address, bind, format_address, is_loopback, parse_address
from bandweave.mesh.channel import Channel
from bandweave.mesh.hangup import wait_hangup
from bandweave.nodes.context import NodeContext, ThreadGroup
from bandweave.nodes.handle import START_TIMEOUT, Launcher, LaunchError, NodeHandle
from bandweave.nodes.process import SERVE, Serve, run_node
from bandweave.nodes.spawn import NodeSettings, Tail, describe_end, end_process, spawn

__all__ = [
    "HostError",
    "HostLauncher",
    "LaunchError",
    "Launcher",
    "LocalLauncher",
    "NodeHandle",
    "ThreadLauncher",
]


_ENDING_SECONDS = (1.0, 1.0, 1.0)

OnWaiting = Callable[[str], None]  # the name of the node waited for


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
        """Waits up to half a second for the process's last words, which are part of the reason."""
        status = self._process.poll()
        if status is None:
            return None
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
    ) -> None:
        super().__init__(make_secret(), start_timeout=start_timeout)
        self._threads, self._python, self._serve = threads_per_node, python, serve
        self._cache = cache

    def _launch(self, num_nodes: int) -> None:
        for node in range(num_nodes):
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
                handle = ProcessHandle(node=node, process=process, channel=channel, address=address)
            except RuntimeError as error:  # no thread to read its output
                channel.close()
                end_process(process, _ENDING_SECONDS)
                raise LaunchError(f"node {node} did not start: {error}") from error
            self._handles.append(handle)


class HostHandle(NodeHandle):
    """A node that a worker on some host runs. It is alive as long as its connection stands."""

    def alive(self) -> bool:
        return not self.channel.hung_up()

    def exit_reason(self) -> str | None:
        return None if self.alive() else "ended, or its machine did; see what the worker there says"

    def wait(self, timeout: float | None = None) -> bool:
        return self.channel.closed or wait_hangup(self.channel.fileno(), timeout)

    def kill(self) -> None:
        self.channel.hang_up()  # the node's process ends when its controller is gone


class HostError(HandshakeError, ValueError):
    """A host that was named and cannot be used, and what to do about it."""


class HostLauncher(Launcher):
    """Nodes on hosts that run ``bandweave worker``, one per address, in order.

    ``on_waiting`` hears the name of each node before it is connected to. ``start`` raises
    ``HostError`` for a host that cannot be reached or refuses.
    """

    local = False

    def __init__(
        self,
        addresses: Sequence[Address | str],
        secret: bytes,
        *,
        connect_timeout: float = 10.0,
        start_timeout: float = START_TIMEOUT,
        on_waiting: OnWaiting = lambda name: None,
    ) -> None:
        super().__init__(secret, start_timeout=start_timeout)
        self.addresses = [parse_address(a) if isinstance(a, str) else a for a in addresses]
        self._connect_timeout, self._on_waiting = connect_timeout, on_waiting
        for node, address in enumerate(self.addresses):
            if address in self.addresses[:node]:
                raise ValueError(f"{format_address(address)} is given twice; a worker is one node")
        local = [a for a in self.addresses if is_loopback(a[0])]
        if local and len(local) < len(self.addresses):
            raise ValueError(
                f"{format_address(local[0])} cannot be reached from the other hosts; give the "
                "address by which they know this machine"
            )

    def _launch(self, num_nodes: int) -> None:
        if num_nodes != len(self.addresses):
            raise ValueError(f"{num_nodes} nodes, but {len(self.addresses)} hosts are given")
        for node, address in enumerate(self.addresses):
            name = f"node {node} ({format_address(address)})"
            own = Hello(purpose="control", node=node, session=self.session)
            self._on_waiting(name)
            try:
                sock, theirs = connect(
                    address, self.secret, own, name=name, timeout=self._connect_timeout
                )
            except HandshakeError as error:
                hint = "; is `bandweave worker` running there, and its port open to this machine?"
                text = str(error) + (hint if isinstance(error, Unreachable) else "")
                raise HostError(text) from error
            channel = Channel(sock, name)
            handle = HostHandle(node=node, name=name, channel=channel, address=address)
            self._handles.append(handle)
            if theirs.address:
                handle.address = _parse_advertised(theirs.address, name)


def _parse_advertised(text: str, name: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise HostError(
            f"{name} wants to be reached at an address that is none; start its worker with "
            f"another --advertise: {error}"
        ) from error


class ThreadHandle(NodeHandle):
    """A node that is a thread of this process."""

    def __init__(self, *, node: int, channel: Channel, run: Callable[[], int]) -> None:
        name = f"node {node} (thread)"
        super().__init__(node=node, name=name, channel=channel, address=None)
        self._status: int | None = None
        self._thread = threading.Thread(target=self._run, args=(run,), name=name, daemon=True)
        self._thread.start()

    def _run(self, run: Callable[[], int]) -> None:
        self._status = run()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def exit_reason(self) -> str | None:
        return None if self.alive() else describe_end(1 if self._status is None else self._status)

    def wait(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def kill(self) -> None:
        self.channel.hang_up()  # a thread cannot be killed; it ends when it next listens


class ThreadLauncher(Launcher):
    """Nodes as threads of this process, for tests. ``group`` makes what they share."""

    processes = False

    def __init__(
        self,
        threads_per_node: int | None = None,
        *,
        cache: str = "",
        serve: Serve | str = SERVE,
        group: Callable[[int], Any] = lambda num_nodes: ThreadGroup(num_nodes=num_nodes),
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        super().__init__(make_secret(), start_timeout=start_timeout)
        self._threads, self._serve, self._group = threads_per_node, serve, group
        self._cache = cache

    def _launch(self, num_nodes: int) -> None:
        group = self._group(num_nodes)
        for node in range(num_nodes):
            ours, theirs = socket.socketpair()
            context = NodeContext(
                name=f"node {node}",
                node=node,
                session=self.session,
                channel=Channel(theirs, "the controller"),
                secret=self.secret,
                in_process_group=group,
                threads=self._threads,
                cache=self._cache,
            )
            channel = Channel(ours, context.name)
            run = _ThreadNode(self._serve, context)
            self._handles.append(ThreadHandle(node=node, channel=channel, run=run))


class _ThreadNode:
    """Runs a node and closes its side of the channel."""

    def __init__(self, serve: Serve | str, context: NodeContext) -> None:
        self._serve, self._context = serve, context

    def __call__(self) -> int:
        try:
            return run_node(self._serve, self._context)
        finally:
            self._context.channel.close()
