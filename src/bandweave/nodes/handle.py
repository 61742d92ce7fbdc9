"""NodeHandle and Launcher: nodes as their controller sees them, and how they start and end.

Knows the messages "ready", "failed" and "shutdown"; knows no kind of node and no models.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from bandweave import NUMERICS_VERSION, __version__
from bandweave.handshake.secret import check_secret
from bandweave.mesh.address import Address
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.mesh.printable import printable

START_TIMEOUT = 60.0
LONGEST_REASON = 2000  # characters of what a node says of its end
SILENT_SECONDS = 15.0
SILENT = (
    f"its machine has not answered for {SILENT_SECONDS:.0f} s; see whether it runs, and whether "
    "the network between it and this one does"
)
_LOOK_SECONDS = 2.0  # between two looks at whether a node's machine is there
_POLITE_SECONDS, _FIRM_SECONDS = 2.0, 1.0
_STARTING_PATIENCE = 0.1  # a node that starts does not listen


class LaunchError(ConnectionError):
    """Nodes that did not start. Names the node and its reason."""


class NodeHandle(ABC):
    """One started node.

    ``name`` is for people (``"node 2 (pid 1234)"``); ``channel`` leads to the node; ``address`` is
    where other nodes reach it, None for threads. ``host_id`` is the same for all nodes of one host,
    and empty where a host does not say who it is (``mesh.host``).
    """

    host_id = ""

    def __init__(self, *, node: int, name: str, channel: Channel, address: Address | None) -> None:
        self.node, self.name, self.channel, self.address = node, name, channel, address
        channel.peer = name

    @abstractmethod
    def alive(self) -> bool:
        """Whether the node has not ended yet."""

    @abstractmethod
    def exit_reason(self) -> str | None:
        """Why the node ended, in words that follow its name; None while it is alive."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Whether the node has ended, after at most ``timeout`` seconds."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the node without asking it. Does not wait."""

    def terminate(self) -> None:
        """Ends the node in the gentlest way that needs no cooperation. Does not wait."""
        self.kill()

    def is_silent(self, since: float) -> bool:
        """Whether the node's machine has given no sign of life for so long, and not since the time
        ``since`` (of ``time.monotonic``), that whoever waits for it had better not. A machine that
        is reached gives one every five seconds, whatever the node does."""
        return min(self.channel.silence(), time.monotonic() - since) > SILENT_SECONDS

    def receive(self, timeout: float) -> dict[str, Any]:
        """The node's next message. ``TimeoutError`` where none came within ``timeout`` seconds or
        its machine is silent; ``ChannelError`` where the connection ended."""
        since = time.monotonic()
        while True:
            left = since + timeout - time.monotonic()
            try:
                return self.channel.receive(max(0.0, min(left, _LOOK_SECONDS)))
            except TimeoutError:
                if self.is_silent(since):
                    raise TimeoutError(f"{self.name}: {SILENT}") from None
                if left <= _LOOK_SECONDS:
                    raise TimeoutError(f"{self.name} said nothing for {timeout:.3g} s") from None

    def close(self) -> None:
        """Releases what the handle holds. The node has ended or is given up."""
        self.channel.close()

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Launcher(ABC):
    """Starts the nodes of one session at a time, and ends them.

    ``local``: they share this machine's memory and processors, and its files; ``processes``: each
    has one of its own.
    ``session`` and ``secret`` are what the nodes need to find each other. A context manager.
    """

    local = True
    processes = True

    def __init__(self, secret: bytes, *, start_timeout: float = START_TIMEOUT) -> None:
        self.secret = check_secret(secret)
        self.session = ""
        self._start_timeout = start_timeout
        self._handles: list[NodeHandle] = []
        self._stopping = threading.Lock()

    @abstractmethod
    def _launch(self, num_nodes: int) -> None:
        """Appends the handles of all nodes to ``self._handles``, which ``stop`` cleans up."""

    def start(self, num_nodes: int) -> list[NodeHandle]:
        """Starts nodes 0 to ``num_nodes - 1`` and waits until each is ready to serve.

        ``ValueError`` where the request makes no sense; ``LaunchError`` or another ``OSError`` that
        names the node where one does not come up, after the others have been ended.
        """
        if num_nodes < 1:
            raise ValueError(f"{num_nodes} nodes: at least one is needed")
        if self._handles:
            raise ValueError("the nodes of this launcher run already; stop them first")
        self.session = secrets.token_hex(16)
        deadline = time.monotonic() + self._start_timeout
        try:
            self._launch(num_nodes)
            for handle in self._handles:
                await_ready(handle, max(0.0, deadline - time.monotonic()))
            return list(self._handles)
        except BaseException:
            self.stop(patience=_STARTING_PATIENCE)
            raise

    def stop(self, *, patience: float = _POLITE_SECONDS) -> None:
        """Ends all nodes: asks them, terminates those that do not answer within ``patience``
        seconds, kills the rest.

        Takes at most about three seconds more. May be called more than once and from any thread.
        """
        with self._stopping:
            for handle in self._handles:
                with contextlib.suppress(OSError):
                    handle.channel.send({"type": "shutdown"}, timeout=_FIRM_SECONDS)
            running = _wait_all(self._handles, patience)
            for handle in running:
                handle.terminate()
            running = _wait_all(running, min(patience, _FIRM_SECONDS))
            for handle in running:
                handle.kill()
            _wait_all(running, min(patience, _FIRM_SECONDS))
            for handle in self._handles:
                handle.close()
            self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def await_ready(handle: NodeHandle, timeout: float) -> dict[str, Any]:
    """The node's "ready" message; notes its host. ``LaunchError`` where the node ends, fails or
    says nothing for ``timeout`` seconds, or runs another version."""
    try:
        message = handle.channel.receive(timeout)
    except TimeoutError:
        raise LaunchError(f"{handle.name} did not start within {timeout:.3g} s") from None
    except ChannelClosed:
        handle.wait(_FIRM_SECONDS)
        reason = handle.exit_reason() or "closed the connection"
        raise LaunchError(f"{handle.name} did not start: it {reason}") from None
    if message.get("type") == "failed":
        reason = printable(message.get("reason"), LONGEST_REASON)
        raise LaunchError(f"{handle.name} did not start: {reason}")
    there = (message.get("numerics"), message.get("package"))
    if message.get("type") != "ready" or there != (NUMERICS_VERSION, __version__):
        numerics, package = (printable(str(version)) for version in there)
        raise LaunchError(
            f"{handle.name} runs bandweave {package} with numerics version {numerics}; here it is "
            f"{__version__} with {NUMERICS_VERSION}: install the same on both"
        )
    host = message.get("host_id")
    handle.host_id = printable(host) if isinstance(host, str) else ""
    return message


def _wait_all(handles: list[NodeHandle], seconds: float) -> list[NodeHandle]:
    """Those that still run after ``seconds`` for all of them together."""
    deadline = time.monotonic() + seconds
    return [h for h in handles if not h.wait(max(0.0, deadline - time.monotonic()))]
