"""Launcher: starts the nodes of a session and ends them, whatever kind of node they are.

Knows the messages "ready", "failed" and "shutdown"; knows no models.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Self

from bandweave import NUMERICS_VERSION, __version__
from bandweave.handshake.encryption import AUTO
from bandweave.handshake.secret import check_secret
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.printable import printable
from bandweave.mesh.sealing import AES, CHACHA, KEY_BYTES
from bandweave.messages import LinkEncryption
from bandweave.nodes.node_handle import LONGEST_REASON, NodeHandle

START_TIMEOUT = 60.0
_POLITE_SECONDS, _FIRM_SECONDS = 2.0, 1.0
_STARTING_PATIENCE = 0.1  # a node that starts does not listen


class LaunchError(ConnectionError):
    """Nodes that did not start. Names the node and its reason."""


class Launcher(ABC):
    """Starts the nodes of one session at a time, and ends them.

    ``local``: they share this machine's memory and processors, and its files; ``processes``: each
    has one of its own.
    ``session`` and ``secret`` are what the nodes need to find each other, ``mesh_key`` what their
    links are bound to; ``encryption``: of those. A context manager.
    """

    local = True
    processes = True
    encryption = AUTO

    def __init__(self, secret: bytes, *, start_timeout: float = START_TIMEOUT) -> None:
        self.secret = check_secret(secret)
        self.session, self.mesh_key = "", b""
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
        self.session, self.mesh_key = secrets.token_hex(16), secrets.token_bytes(KEY_BYTES)
        deadline = time.monotonic() + self._start_timeout
        try:
            self._launch(num_nodes)
            for handle in self._handles:
                await_ready(handle, max(0.0, deadline - time.monotonic()))
            return list(self._handles)
        except BaseException:
            self.stop(patience=_STARTING_PATIENCE)
            raise

    def link_encryption(self) -> LinkEncryption:
        """How the links of the started nodes are encrypted: with AES where all processors have
        instructions for it."""
        aes = all(handle.aes for handle in self._handles)
        return LinkEncryption(
            encryption=self.encryption, cipher=AES if aes else CHACHA, key=self.mesh_key.hex()
        )

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

    def __exit__(self, *_: object) -> None:
        self.stop()


def await_ready(handle: NodeHandle, timeout: float) -> dict[str, Any]:
    """The node's "ready" message; notes its host and processor. ``LaunchError`` where the node
    ends, fails or says nothing for ``timeout`` seconds, or runs another version."""
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
    handle.aes = message.get("aes") is True
    return message


def _wait_all(handles: list[NodeHandle], seconds: float) -> list[NodeHandle]:
    """Those that still run after ``seconds`` for all of them together."""
    deadline = time.monotonic() + seconds
    return [h for h in handles if not h.wait(max(0.0, deadline - time.monotonic()))]
