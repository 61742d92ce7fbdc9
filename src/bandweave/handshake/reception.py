"""Reception: takes connections at a port, in the background, and authenticates them.

One thread serves all of them, none of which it waits for: a stranger costs a descriptor, a few
kilobytes and a few seconds at most. When too many wait, the oldest is dropped, one that has said
nothing before one that has. No error of one connection, and no shortage of descriptors, memory or
threads, ends the thread. Knows no messages beyond the handshake.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable

from bandweave.handshake.acceptance import Acceptance, Admit
from bandweave.handshake.allowance import Allowance
from bandweave.handshake.connection import Connection
from bandweave.handshake.handshake import ACCEPT_TIMEOUT, HandshakeError, Misfit
from bandweave.handshake.hello import Hello
from bandweave.handshake.secret import check_secret
from bandweave.handshake.stranger_log import StrangerLog
from bandweave.mesh.address import format_address
from bandweave.mesh.channel import ChannelClosed

_MOST_WAITING = 256  # connections in the midst of their handshake
_BATCH = 16  # taken before those that wait have their turn
_PAUSE = 0.1  # seconds, after trouble that only time can mend
_SPARING_RATE, _SPARING_BURST = 25.0, 16.0  # connections a second, while others compute
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Reception:
    """Serves a listening socket, which it does not own, from the time that it is made until
    ``stop``.

    ``own`` tells what the acceptor says of itself at the time. ``admit`` may refuse an
    authenticated connection, ``deliver`` gets each one that was admitted and welcomed, and
    ``on_misfit`` hears of proved ones whose version does not fit. All four are called in the
    background thread and must not wait. ``encrypted``: what leaves this machine must be. ``log``
    gets at most a sentence a second about connections that were refused or dropped.
    """

    def __init__(
        self,
        listening: socket.socket,
        secret: bytes,
        *,
        own: Callable[[], Hello],
        admit: Admit,
        deliver: Callable[[Connection], None],
        on_misfit: Callable[[Misfit], None] = lambda misfit: None,
        log: Callable[[str], None] = lambda sentence: None,
        timeout: float = ACCEPT_TIMEOUT,
        encrypted: bool = False,
    ) -> None:
        self._encrypted = encrypted
        self._secret = check_secret(secret)
        self._socket = listening
        self._socket.setblocking(False)
        self._own, self._admit, self._deliver, self._on_misfit = own, admit, deliver, on_misfit
        self._strangers, self._timeout = StrangerLog(log), timeout
        # Handshakes by descriptor, the oldest first, and when their time is up.
        self._waiting: dict[int, tuple[Acceptance, float]] = {}
        self._sparing: Allowance | None = None
        self._resume_at: float | None = None  # while no connections are taken
        self._stopped = False
        self._wake, self._wake_peer = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_peer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="reception", daemon=True)
        self._thread.start()

    def spare(self, sparing: bool) -> None:
        """While ``sparing``, strangers get next to none of this machine's time: connections beyond
        a few dozen a second wait in the system's queue, and where that is full, at their own end.
        """
        self._sparing = Allowance(_SPARING_RATE, _SPARING_BURST) if sparing else None
        self._wake_up()

    def stop(self) -> None:
        """Ends the background thread and drops the connections in the midst of their handshake.
        The system queues what comes for the socket's next user. May be called more than once."""
        first, self._stopped = not self._stopped, True
        if not first:
            return
        self._wake_up()
        self._thread.join()
        self._selector.close()
        self._wake.close()
        self._wake_peer.close()
        for acceptance, _ in self._waiting.values():
            acceptance.close()
        self._waiting.clear()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            self._wake_peer.send(b"x")

    # --- in the background thread ---

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except Exception as error:
                # Whatever it was, a port where nobody listens would be worse.
                self._strangers.add(f"cannot take connections: {error or type(error).__name__}")
                time.sleep(_PAUSE)

    def _turn(self) -> None:
        """Waits for something to do, and does it."""
        for key, _ in self._selector.select(self._patience()):
            if self._stopped:
                return
            if key.fileobj is self._socket:
                self._take_some()
            elif key.fileobj is self._wake:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
            elif key.fd in self._waiting:  # not dropped just now to make room
                self._advance(key.fd)
        now = time.monotonic()
        while self._waiting and next(iter(self._waiting.values()))[1] <= now:
            self._drop(next(iter(self._waiting)), "it says nothing")
        if self._resume_at is not None and self._resume_at <= now:
            self._selector.register(self._socket, selectors.EVENT_READ)
            self._resume_at = None
        self._strangers.flush()

    def _patience(self) -> float | None:
        times = [self._resume_at, self._strangers.due()]
        times += [deadline for _, deadline in list(self._waiting.values())[:1]]
        known = [moment for moment in times if moment is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _pause(self, seconds: float) -> None:
        self._selector.unregister(self._socket)
        self._resume_at = time.monotonic() + seconds

    def _take_some(self) -> None:
        for _ in range(_BATCH):
            sparing = self._sparing
            if sparing is not None and not sparing.take():
                self._pause(sparing.wait_seconds())
                return
            try:
                sock, where = self._socket.accept()
            except (InterruptedError, ConnectionError):
                continue
            except BlockingIOError:
                return
            except OSError as error:
                # Strangers may hold what is missing. If not, leave others time to end.
                if error.errno in _SHORT and self._make_room("others need its place"):
                    continue
                self._strangers.add(f"cannot take a connection: {error.strerror}")
                self._pause(_PAUSE)
                return
            self._begin(sock, format_address(where[:2]))

    def _begin(self, sock: socket.socket, peer: str) -> None:
        while len(self._waiting) >= _most_waiting():
            self._make_room("others came after it")
        try:
            acceptance = Acceptance(
                sock, self._secret, self._own, self._admit, peer=peer, encrypted=self._encrypted
            )
            self._selector.register(acceptance.fileno(), selectors.EVENT_READ)
        except BaseException:
            sock.close()
            raise
        self._waiting[acceptance.fileno()] = acceptance, time.monotonic() + self._timeout
        self._advance(acceptance.fileno())  # what it says has often come with it

    def _make_room(self, why: str) -> bool:
        """Drops the oldest handshake, a silent one before others. False where there is none."""
        silent = (fd for fd, (acceptance, _) in self._waiting.items() if not acceptance.spoken)
        oldest = next(silent, next(iter(self._waiting), None))
        if oldest is None:
            return False
        self._drop(oldest, why)
        return True

    def _forget(self, descriptor: int) -> Acceptance:
        self._selector.unregister(descriptor)
        return self._waiting.pop(descriptor)[0]

    def _drop(self, descriptor: int, why: str) -> None:
        acceptance = self._forget(descriptor)
        acceptance.close()
        self._strangers.add(f"dropped {acceptance.peer}: {why}")

    def _advance(self, descriptor: int) -> None:
        acceptance = self._waiting[descriptor][0]
        try:
            hello = acceptance.advance()
            if hello is not None:
                self._forget(descriptor)
                self._hand_out(acceptance, hello)
        except Exception as error:
            if descriptor in self._waiting:
                self._forget(descriptor)
            acceptance.close()
            if isinstance(error, Misfit):  # whoever waits for this node need not wait in vain
                self._on_misfit(error)
            if not isinstance(error, HandshakeError):
                error = HandshakeError(
                    f"dropped {acceptance.peer}: {error or type(error).__name__}"
                )
            if acceptance.spoken or not isinstance(error.__cause__, ChannelClosed):
                # Who comes and goes without a word only looks how far it is, or whether it is here.
                self._strangers.add(str(error))

    def _hand_out(self, acceptance: Acceptance, hello: Hello) -> None:
        sock = acceptance.detach()
        try:
            self._deliver(
                Connection(
                    socket=sock,
                    hello=hello,
                    peer=acceptance.peer,
                    keys=acceptance.keys,
                    local=acceptance.local,
                )
            )
        except BaseException:
            sock.close()
            raise


def _most_waiting() -> int:
    """A quarter of the descriptors that this process may have, for the sessions need some too."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(4, min(_MOST_WAITING, limit // 4)) if limit > 0 else _MOST_WAITING
