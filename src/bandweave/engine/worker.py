"""The worker: offers this machine to controllers as a node, one session at a time.

Every session runs in a fresh process, so that its memory is given back and a crash of it ends
nothing else. That process inherits the listening socket and the controller's connection: while it
lives it alone takes connections (its mesh, and controllers that must hear "busy"), and the worker
does nothing but wait for it. When it ends, the worker takes connections again; what comes in
between waits in the system's queue. Knows no models.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bandweave.engine.lifeline import HANGUP_STATUS
from bandweave.engine.process import SERVE
from bandweave.engine.spawn import NodeSettings, describe_end, end_process, spawn
from bandweave.mesh.address import Address, bind, format_address, parse_address
from bandweave.mesh.channel import Channel
from bandweave.mesh.handshake import ACCEPT_TIMEOUT
from bandweave.mesh.hello import Hello, Refusal
from bandweave.mesh.listener import Connection, Listener
from bandweave.mesh.secret import check_secret

_STANDARD_ERROR = 2
_ENDING_SECONDS = 2.0


def _print(sentence: str) -> None:
    print(f"worker: {sentence}", file=sys.stderr, flush=True)


class _OneController:
    """Admits one controller; the others hear that the worker is busy.

    A controller that vanished in the midst of its handshake holds its place no longer than a
    handshake may take.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __call__(self, hello: Hello) -> Refusal | None:
        if hello.purpose != "control":
            return Refusal(reason="the worker has no session yet", retry=True)
        if hello.node < 0 or not hello.session:
            return Refusal(reason="the controller names no node or session")
        with self._lock:
            if time.monotonic() < self._free_at:
                return Refusal(reason=_busy("another controller"))
            self._free_at = time.monotonic() + ACCEPT_TIMEOUT + 1.0
        return None


def _busy(controller: str) -> str:
    return f"it is busy: it serves {controller}; wait for that to end or choose another worker"


class Worker:
    """Listens at once; ``serve_one`` serves one session. Close it when done."""

    def __init__(
        self,
        listen: Address | str,
        secret: bytes,
        model_roots: Sequence[Path | str] = (),
        *,
        advertise: Address | str | None = None,
        threads: int | None = None,
        cache: str = "",
        isa: str = "",
        log: Callable[[str], None] = _print,
        python: str = sys.executable,
        serve: str = SERVE,
        option: str = "--listen",
    ) -> None:
        check_secret(secret)
        roots = [Path(root).expanduser().resolve() for root in model_roots]
        for root in roots:
            if not root.is_dir():
                raise ValueError(f"--models {root}: there is no such folder")
        self._secret, self._roots, self._threads = secret, roots, threads
        self._cache, self._isa = cache, isa
        self._log, self._python, self._serve = log, python, serve
        if isinstance(advertise, str):
            advertise = parse_address(advertise)
        self._advertise = advertise
        where = parse_address(listen, listening=True) if isinstance(listen, str) else listen
        self._socket = bind(where, option=option)

    @property
    def address(self) -> Address:
        """Host and port that the worker listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def serve_one(self) -> None:
        """Waits for a controller and serves its session to its end, good or bad."""
        listener = Listener(
            self._socket,
            self._secret,
            advertise=format_address(self._advertise) if self._advertise else "",
            admit=_OneController(),
            log=self._log,
        )
        try:
            connection = listener.get_control()
        finally:
            listener.stop()
        with connection.socket:
            self._log(f"serves {connection.peer} as node {connection.hello.node}")
            status = self._run_session(connection)
            if status in (0, HANGUP_STATUS):
                self._log("session ended; waiting for the next")
                return
            reason = f"its process {describe_end(status)}"
            self._log(f"session failed: {reason}; waiting for the next")
            # Reaches the controller only where the process had no time to say why itself.
            with contextlib.suppress(OSError):
                channel = Channel(connection.socket, connection.peer)
                channel.send({"type": "failed", "reason": reason}, timeout=1.0)

    def _run_session(self, connection: Connection) -> int:
        address = self._advertise or (_local_host(connection.socket), self.address[1])
        settings = NodeSettings(
            name=f"node {connection.hello.node} ({format_address(address)})",
            node=connection.hello.node,
            session=connection.hello.session,
            address=address,
            secret=self._secret,
            busy=_busy(f"the controller at {connection.peer}"),
            threads=self._threads,
            model_roots=self._roots,
            cache=self._cache,
            isa=self._isa,
        )
        process, channel = spawn(
            settings,
            self._socket,
            control=connection.socket,
            output=_STANDARD_ERROR,
            python=self._python,
            serve=self._serve,
        )
        try:
            return process.wait()
        finally:
            channel.close()  # ends the process where the worker is interrupted
            end_process(process, _ENDING_SECONDS)

    def close(self) -> None:
        """Stops listening."""
        self._socket.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_worker(
    listen: Address | str,
    secret: bytes,
    model_roots: Sequence[Path | str] = (),
    *,
    once: bool = False,
    advertise: Address | str | None = None,
    threads: int | None = None,
    cache: str = "",
    isa: str = "",
    log: Callable[[str], None] = _print,
    python: str = sys.executable,
    serve: str = SERVE,
    option: str = "--listen",
) -> None:
    """Serves sessions until Ctrl-C, or one where ``once``.

    ``listen`` is ``host:port``; ``advertise`` the address by which other nodes reach this machine,
    where that is not the one given to the controller; ``cache`` the folder for packed weights,
    empty for none; ``isa`` the kernel variant, empty for the controller's or the fastest;
    ``option`` what an error about the address names. ``ValueError`` with one
    sentence for a secret, folder or address that cannot be used.
    """
    worker = Worker(
        listen,
        secret,
        model_roots,
        advertise=advertise,
        threads=threads,
        cache=cache,
        isa=isa,
        log=log,
        python=python,
        serve=serve,
        option=option,
    )
    with worker:
        try:
            log(f"listening on {format_address(worker.address)}")
            worker.serve_one()
            while not once:
                worker.serve_one()
        except KeyboardInterrupt:
            log("stopped")


def _local_host(sock: socket.socket) -> str:
    return sock.getsockname()[0]
