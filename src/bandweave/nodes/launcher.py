"""Launcher: starts the nodes of a session and ends them, whatever kind of node they are.

Knows the messages "ready", "failed" and "shutdown"; knows no models.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bandweave import NUMERICS_VERSION, __version__
from bandweave.handshake.encryption import AUTO
from bandweave.handshake.secret import check_secret
from bandweave.mesh.address import Address
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


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A machine, or a process of this one, that could be a node now and is none. ``node``: the
    number that it would have in the session; ``address``: None for a process of this machine."""

    node: int
    name: str
    address: Address | None = None


class Launcher(ABC):
    """Starts the nodes of one session at a time, and ends them. Nodes that have died can be
    followed by others under the same numbers.

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
        self._changing = threading.Lock()  # of the handles, once the nodes have started
        self._stopped = False
        self._begun: float | None = None  # when nodes were begun that are waited for yet

    @abstractmethod
    def _launch(self, num_nodes: int) -> None:
        """Appends the handles of all nodes to ``self._handles``, which ``stop`` cleans up."""

    def candidates(self) -> Sequence[Candidate]:
        """Who could be a node now and is none: machines that are back, spares, those that have
        joined. Cheap: it is asked once a second; whether one answers shows when it is admitted."""
        return ()

    def superfluous(self, nodes: Collection[int]) -> Collection[int]:
        """Those of these nodes, by their numbers, that stand in for others which are all there
        again."""
        return ()

    def _admit(self, candidate: Candidate, timeout: float) -> NodeHandle:
        """The handle of a node that is starting. Errors as ``start``."""
        raise ValueError("no node can be added to those that were started")

    def admit(self, candidate: Candidate, timeout: float | None = None) -> NodeHandle:
        """Makes a candidate a node of the session, ready to serve, within ``timeout`` seconds
        (None: as for a start). From any thread, and no other node waits for it.

        ``LaunchError`` or another ``OSError`` that names it where it does not come up.
        """
        deadline = time.monotonic() + (self._start_timeout if timeout is None else timeout)
        handle = self._admit(candidate, max(0.0, deadline - time.monotonic()))
        try:
            await_ready(handle, max(0.0, deadline - time.monotonic()))
            with self._changing:
                if self._stopped:
                    raise LaunchError("the nodes are being ended")
                self._handles.append(handle)
            return handle
        except BaseException:
            _give_up(handle)
            raise

    def dismiss(self, handle: NodeHandle) -> None:
        """A node that failed is none any more: ends it without asking, and frees its number."""
        with self._changing:
            if handle in self._handles:
                self._handles.remove(handle)
        _give_up(handle)

    def start(self, num_nodes: int) -> list[NodeHandle]:
        """Starts nodes 0 to ``num_nodes - 1``, unless they have been begun, and waits until each is
        ready to serve.

        ``ValueError`` where the request makes no sense; ``LaunchError`` or another ``OSError`` that
        names the node where one does not come up, after the others have been ended.
        """
        if self._begun is None:
            self.begin(num_nodes)
        assert self._begun is not None
        deadline, self._begun = self._begun + self._start_timeout, None
        try:
            for handle in self._handles:
                await_ready(handle, max(0.0, deadline - time.monotonic()))
            return list(self._handles)
        except BaseException:
            self.stop(patience=_STARTING_PATIENCE)
            raise

    def begin(self, num_nodes: int) -> None:
        """Begins what ``start`` does, and returns at once where nodes are processes of this
        machine: they come up while this one does other things. Errors as ``start``."""
        if num_nodes < 1:
            raise ValueError(f"{num_nodes} nodes: at least one is needed")
        if self._handles:
            raise ValueError("the nodes of this launcher run already; stop them first")
        self.session, self.mesh_key = secrets.token_hex(16), secrets.token_bytes(KEY_BYTES)
        self._stopped = False
        begun = time.monotonic()
        try:
            self._launch(num_nodes)
        except BaseException:
            self.stop(patience=_STARTING_PATIENCE)
            raise
        self._begun = begun

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
            with self._changing:
                self._stopped = True
                handles = list(self._handles)
            for handle in handles:
                with contextlib.suppress(OSError):
                    handle.channel.send({"type": "shutdown"}, timeout=_FIRM_SECONDS)
            running = _wait_all(handles, patience)
            for handle in running:
                handle.terminate()
            running = _wait_all(running, min(patience, _FIRM_SECONDS))
            for handle in running:
                handle.kill()
            _wait_all(running, min(patience, _FIRM_SECONDS))
            for handle in handles:
                handle.close()
            with self._changing:
                self._handles = []
                self._begun = None

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


def _give_up(handle: NodeHandle) -> None:
    handle.kill()
    handle.wait(_FIRM_SECONDS)
    handle.close()


def _wait_all(handles: list[NodeHandle], seconds: float) -> list[NodeHandle]:
    """Those that still run after ``seconds`` for all of them together."""
    deadline = time.monotonic() + seconds
    return [h for h in handles if not h.wait(max(0.0, deadline - time.monotonic()))]
