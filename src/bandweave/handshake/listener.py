"""Listener: a port where controllers and nodes connect, and wait to be asked for.

Knows no messages beyond the handshake.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from bandweave.handshake.acceptance import Admit
from bandweave.handshake.connection import Arrived, Connection
from bandweave.handshake.handshake import ACCEPT_TIMEOUT, HandshakeError, Misfit
from bandweave.handshake.hello import NO_NODE, Hello, Refusal
from bandweave.handshake.reception import Reception
from bandweave.mesh.address import Address, bind


def mesh_only(session: str, node: int) -> Admit:
    """Admits the nodes of one session that connect to ``node``: those with higher ids."""

    def admit(hello: Hello) -> Refusal | None:
        if hello.purpose == "control":
            return Refusal(reason="it is a node, which has its controller")
        if hello.purpose == "files":
            return Refusal(reason="its files are those of its controller's machine")
        if hello.session != session:
            return Refusal(reason="it serves another session")
        if hello.node <= node:
            return Refusal(reason=f"node {hello.node} does not connect to node {node}")
        return None

    return admit


class Listener:
    """Takes connections at an address, or on a socket that listens already.

    ``admit`` may refuse an authenticated connection, in the background thread. ``session`` and
    ``node`` are what the listener says of itself; ``log`` gets at most a sentence a second about
    connections that were refused or dropped. ``ValueError`` names ``option`` where the address
    cannot be had.
    """

    def __init__(
        self,
        where: Address | socket.socket,
        secret: bytes,
        *,
        session: str = "",
        node: int = NO_NODE,
        advertise: str = "",
        admit: Admit = lambda hello: None,
        log: Callable[[str], None] = lambda sentence: None,
        timeout: float = ACCEPT_TIMEOUT,
        option: str = "--listen",
    ) -> None:
        self._socket = where if isinstance(where, socket.socket) else bind(where, option=option)
        self._address = self.address
        self._own = Hello(purpose="mesh", node=node, session=session, address=advertise)
        self._changed = threading.Condition()
        self._closed = False
        self._control: deque[Connection] = deque()
        self._mesh: dict[tuple[str, int], Connection] = {}
        self._refused: dict[tuple[str, int], str] = {}
        self._receive = partial(
            Reception,
            secret=secret,
            own=lambda: self._own,
            admit=admit,
            deliver=self._keep,
            on_misfit=self._note_misfit,
            log=log,
            timeout=timeout,
        )
        self._reception = self._receive(self._socket)

    @property
    def address(self) -> Address:
        """Host and port that the socket is bound to; the host may stand for all interfaces."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def get_control(self, timeout: float | None = None) -> Connection:
        """The next controller's connection. ``TimeoutError`` after ``timeout`` seconds."""
        with self._changed:
            self._wait(lambda: bool(self._control), timeout, "no controller connected")
            return self._control.popleft()

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> Arrived:
        """The connection from ``node``, in blocking mode.

        ``TimeoutError`` after ``timeout`` seconds; ``HandshakeError`` as soon as that node came
        and its version did not fit.
        """
        key = (session, node)
        with self._changed:
            self._wait(
                lambda: key in self._mesh or key in self._refused,
                timeout,
                f"node {node} did not connect",
            )
            if key in self._mesh:
                found = self._mesh.pop(key)
                return Arrived(found.socket, found.keys, found.local)
            raise HandshakeError(f"node {node} does not fit, {self._refused[key]}")

    def open(self) -> None:
        """Nodes are expected again: where ``finish`` has closed the port it is opened again.
        ``OSError`` where somebody else has it now."""
        with self._changed:
            if not self._closed:
                return
            try:
                self._socket = bind(self._address)
            except ValueError as error:
                raise ConnectionError(str(error)) from error
            self._closed = False
            self._refused.clear()
        self._reception = self._receive(self._socket)

    def finish(self) -> None:
        """All nodes have met: nobody else is expected, and the port is closed."""
        self.close()

    def stop(self) -> socket.socket:
        """Ends the background thread, drops connections that nobody has taken, and gives the
        socket back, still listening: the system queues what comes for its next user."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._reception.stop()
        with self._changed:
            for connection in (*self._control, *self._mesh.values()):
                connection.socket.close()
            self._control.clear()
            self._mesh.clear()
        return self._socket

    def close(self) -> None:
        """Stops and closes this process's listening socket. May be called more than once."""
        self.stop().close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, ready: Callable[[], bool], timeout: float | None, complaint: str) -> None:
        self._changed.wait_for(lambda: self._closed or ready(), timeout)
        if self._closed:
            raise ConnectionError("the listener is closed")
        if not ready():
            raise TimeoutError(f"{complaint} within {timeout:g} s")

    # --- in the background thread ---

    def _keep(self, connection: Connection) -> None:
        hello = connection.hello
        with self._changed:
            if self._closed:
                connection.socket.close()
            elif hello.purpose == "control":
                self._control.append(connection)
            else:
                # A second one from the same node: it never saw our welcome and tried again.
                older = self._mesh.pop((hello.session, hello.node), None)
                if older is not None:
                    older.socket.close()
                self._mesh[hello.session, hello.node] = connection
            self._changed.notify_all()

    def _note_misfit(self, misfit: Misfit) -> None:
        hello = misfit.hello
        if hello.purpose != "mesh" or hello.session != self._own.session:
            return
        with self._changed:
            self._refused[hello.session, hello.node] = str(misfit)
            self._changed.notify_all()
