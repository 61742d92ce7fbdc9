"""Listener: takes connections in the background, authenticates them and hands them out.

Every connection gets a thread of its own and a few seconds, so a stranger that says nothing holds
up nobody; when too many wait, the oldest is dropped. Knows no messages beyond the handshake.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bandweave.mesh.address import Address, bind, peer_address
from bandweave.mesh.handshake import ACCEPT_TIMEOUT, HandshakeError, Misfit, accept
from bandweave.mesh.hello import NO_NODE, Hello, Refusal
from bandweave.mesh.secret import check_secret

_MAX_WAITING = 64  # connections in the midst of their handshake


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An authenticated connection; the socket is in blocking mode."""

    socket: socket.socket
    hello: Hello
    peer: str


def mesh_only(
    session: str, busy: str, ending: Callable[[], bool] = lambda: False
) -> Callable[[Hello], Refusal | None]:
    """Admits the nodes of one session; a controller hears ``busy``, and may try again where the
    session is ``ending`` already."""

    def admit(hello: Hello) -> Refusal | None:
        if hello.purpose == "control":
            return Refusal(reason=busy, retry=ending())
        if hello.session != session:
            return Refusal(reason="it serves another session")
        return None

    return admit


class Listener:
    """Takes connections at an address, or on a socket that listens already.

    ``admit`` may refuse an authenticated connection; ``session`` and ``node`` are what the listener
    says of itself; ``log`` gets one sentence for every connection that is refused or dropped.
    ``ValueError`` names ``option`` where the address cannot be had.
    """

    def __init__(
        self,
        where: Address | socket.socket,
        secret: bytes,
        *,
        session: str = "",
        node: int = NO_NODE,
        advertise: str = "",
        admit: Callable[[Hello], Refusal | None] = lambda hello: None,
        log: Callable[[str], None] = lambda sentence: None,
        timeout: float = ACCEPT_TIMEOUT,
        option: str = "--listen",
    ) -> None:
        self._secret = check_secret(secret)
        self._socket = where if isinstance(where, socket.socket) else bind(where, option=option)
        self._socket.setblocking(False)
        self._own = Hello(purpose="mesh", node=node, session=session, address=advertise)
        self._admit, self._log, self._timeout = admit, log, timeout
        self._changed = threading.Condition()
        self._closed = False
        self._waiting: dict[int, socket.socket] = {}
        self._control: deque[Connection] = deque()
        self._mesh: dict[tuple[str, int], Connection] = {}
        self._refused: dict[tuple[str, int], str] = {}
        self._wake, self._wake_peer = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_all, name="listener", daemon=True)
        self._thread.start()

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

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> socket.socket:
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
                return self._mesh.pop(key).socket
            raise HandshakeError(f"node {node} does not fit, {self._refused[key]}")

    def _wait(self, ready: Callable[[], bool], timeout: float | None, complaint: str) -> None:
        self._changed.wait_for(lambda: self._closed or ready(), timeout)
        if self._closed:
            raise ConnectionError("the listener is closed")
        if not ready():
            raise TimeoutError(f"{complaint} within {timeout:g} s")

    def stop(self) -> socket.socket:
        """Ends the background thread, drops connections that nobody has taken, and gives the
        socket back, still listening: the system queues what comes for its next user."""
        with self._changed:
            first = not self._closed
            self._closed = True
            self._changed.notify_all()
        if first:
            with contextlib.suppress(OSError):
                self._wake_peer.send(b"x")
            self._thread.join()
            self._wake.close()
            self._wake_peer.close()
        with self._changed:
            for sock in self._waiting.values():
                _hang_up(sock)
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

    def _accept_all(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._closed:
            poll.poll()
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                continue
            except OSError as error:
                if not self._closed:  # most likely too many open files: leave others time to end
                    self._log(f"cannot take a connection: {error.strerror}")
                    time.sleep(0.1)
                continue
            self._start_handshake(sock)

    def _start_handshake(self, sock: socket.socket) -> None:
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                _hang_up(self._waiting.pop(next(iter(self._waiting))))
            self._waiting[id(sock)] = sock
        thread = threading.Thread(
            target=self._shake_hands, args=(sock,), name="handshake", daemon=True
        )
        thread.start()

    def _shake_hands(self, sock: socket.socket) -> None:
        peer = peer_address(sock)
        try:
            taken, hello = accept(
                sock, self._secret, self._own, self._admit, peer=peer, timeout=self._timeout
            )
        except HandshakeError as error:
            if isinstance(error, Misfit):  # whoever waits for this node need not wait in vain
                with self._changed:
                    self._refused[error.hello.session, error.hello.node] = str(error)
                    self._changed.notify_all()
            if not self._closed:
                self._log(str(error))
            return
        finally:
            with self._changed:
                self._waiting.pop(id(sock), None)
        self._keep(Connection(socket=taken, hello=hello, peer=peer))

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


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
