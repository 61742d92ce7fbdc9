"""ThreadLauncher: nodes as threads of this process, for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from bandweave.handshake.secret import make_secret
from bandweave.mesh.channel import Channel
from bandweave.nodes.context import NodeContext, ThreadGroup
from bandweave.nodes.launcher import START_TIMEOUT, Launcher
from bandweave.nodes.node_handle import NodeHandle
from bandweave.nodes.process import SERVE, Serve, run_node
from bandweave.nodes.spawn import describe_end


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
