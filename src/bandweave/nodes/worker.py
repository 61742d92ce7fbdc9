"""The worker: offers this machine as a node to controllers, one session at a time.

Every session runs in a fresh process, so that its memory is given back and a crash of it ends
nothing else. The worker alone listens, from its start to its end: between sessions it welcomes one
controller, during one it hands the connections of the other nodes to the session's process and
tells controllers that it is busy. Nothing that a session, a controller or a stranger does, and no
shortage, ends the worker. Knows no models.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from bandweave.handshake.connection import Connection
from bandweave.handshake.handshake import Misfit
from bandweave.handshake.hello import NO_NODE, Hello, Refusal
from bandweave.handshake.reception import Reception
from bandweave.handshake.secret import check_secret
from bandweave.mesh.address import Address, bind, format_address, is_unspecified, parse_address
from bandweave.mesh.channel import LAST_WORD, Channel
from bandweave.nodes.lifeline import HANGUP_STATUS
from bandweave.nodes.log import Log
from bandweave.nodes.process import SERVE, describe
from bandweave.nodes.spawn import NodeSettings, describe_end, spawn
from bandweave.nodes.waiting import take
from bandweave.nodes.worker_session import WorkerSession

_STANDARD_ERROR = 2
_MOST_STUCK = 3  # processes that the system does not let end


Loyalty = Callable[[Hello], Refusal | None]


class Worker:
    """Listens at once; ``serve_one`` serves one session. Close it when done.

    ``identity``: a random name, by which it is known again. ``loyalty``, while it is set, says
    which controllers it does not serve, and why; it is asked in the reception's thread."""

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
        encrypted: bool = False,
        log: Callable[[str], None] | None = None,
        python: str = sys.executable,
        serve: str = SERVE,
        option: str = "--listen",
    ) -> None:
        check_secret(secret)
        self.identity = secrets.token_hex(16)
        self.loyalty: Loyalty | None = None
        roots = [Path(root).expanduser().resolve() for root in model_roots]
        for root in roots:
            if not root.is_dir():
                raise ValueError(f"--models {root}: there is no such folder")
        self._secret, self._roots, self._threads = secret, roots, threads
        self._cache, self._isa, self._encrypted = cache, isa, encrypted
        self._log, self._python, self._serve = log or Log("worker"), python, serve
        self._advertise = advertised(advertise)
        where = parse_address(listen, listening=True) if isinstance(listen, str) else listen
        self._lock = threading.Lock()
        self._session: WorkerSession | None = None
        self._sessions: SimpleQueue[WorkerSession] = SimpleQueue()
        self._stuck: list[subprocess.Popen[bytes]] = []
        self._socket = bind(where, option=option)
        try:
            self._reception = Reception(
                self._socket,
                secret,
                own=self._introduce,
                admit=self._admit,
                deliver=self._deliver,
                on_misfit=self._note_misfit,
                log=self._log,
                encrypted=encrypted,
            )
        except BaseException:
            self._socket.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether a session is under way."""
        return self._session is not None

    @property
    def address(self) -> Address:
        """Host and port that the worker listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def serve_one(self) -> None:
        """Waits for a controller and serves its session to its end, good or bad."""
        session = take(self._sessions)
        try:
            self._serve_session(session)
        except Exception as error:
            # No descriptors, no memory, no more processes: this session's misfortune, no other's.
            self._fail(session, f"its worker could not serve it: {describe(error)}")
        finally:
            # In this order: once the controller sees the end, the worker is free for the next.
            with self._lock:
                self._session = None
                self._reception.spare(False)
            session.close()

    def _serve_session(self, session: WorkerSession) -> None:
        connection = session.connection
        self._log(f"serves {connection.peer} as node {connection.hello.node}")
        process = session.run(lambda: self._start(connection))
        status = process.returncode
        if status is None:
            self._stuck.append(process)
            self._log(
                f"session ended, but the system does not let its process {process.pid} end, which "
                "may wait for a disk or another machine; waiting for the next"
            )
        elif status in (0, HANGUP_STATUS):
            self._log("session ended; waiting for the next")
        elif session.left and status < 0:  # it had to be helped
            self._log(f"session ended; its process {describe_end(status)}; waiting for the next")
        else:
            self._fail(session, f"its process {describe_end(status)}")

    def _fail(self, session: WorkerSession, reason: str) -> None:
        self._log(f"session failed: {reason}; waiting for the next")
        # Reaches the controller only where the process had no time to say why itself.
        with contextlib.suppress(OSError):
            sock, peer, keys = session.connection.socket, session.connection.peer, None
            if session.connection.keys is not None:  # those that the process has are its own
                keys = session.connection.keys.derive(LAST_WORD)
            channel = Channel(sock, peer, keys=keys)
            channel.send({"type": "failed", "reason": reason}, timeout=1.0)

    def _start(self, connection: Connection) -> tuple[subprocess.Popen[bytes], Channel]:
        host = connection.socket.getsockname()[0]
        address = self._advertise or (host, self.address[1])
        settings = NodeSettings(
            name=f"node {connection.hello.node} ({format_address(address)})",
            node=connection.hello.node,
            session=connection.hello.session,
            address=address,
            secret=self._secret,
            threads=self._threads,
            model_roots=self._roots,
            cache=self._cache,
            isa=self._isa,
            encrypted=self._encrypted,
            control_keys=connection.keys,
        )
        return spawn(
            settings,
            control=connection.socket,
            output=_output(),
            python=self._python,
            serve=self._serve,
        )

    def close(self) -> None:
        """Stops listening."""
        self._reception.stop()
        self._socket.close()
        session = self._session
        if session is not None:  # one that nobody has begun to serve, too
            session.close()
        if isinstance(self._log, Log):
            self._log.flush()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- in the reception's thread ---

    def _introduce(self) -> Hello:
        session = self._session
        advertise = format_address(self._advertise) if self._advertise else ""
        node, session_name = NO_NODE, ""
        if session is not None:
            own = session.connection.hello
            node, session_name = own.node, own.session
        return Hello(
            purpose="mesh",
            node=node,
            session=session_name,
            address=advertise,
            identity=self.identity,
        )

    def _admit(self, hello: Hello) -> Refusal | None:
        if hello.purpose == "cluster":
            return Refusal(
                reason="it is a worker, and no head of a cluster; give the head's address"
            )
        loyalty = self.loyalty
        if hello.purpose == "control" and loyalty is not None:
            refusal = loyalty(hello)
            if refusal is not None:
                return refusal
        with self._lock:
            if self._session is not None:
                return self._session.answer(hello)
        if hello.purpose != "control":
            return Refusal(reason="the worker has no session yet", retry=True)
        if hello.node < 0 or not hello.session:
            return Refusal(reason="the controller names no node or session")
        self._stuck = [process for process in self._stuck if process.returncode is None]
        if len(self._stuck) >= _MOST_STUCK:
            pids = ", ".join(str(process.pid) for process in self._stuck)
            return Refusal(
                reason=f"the system there does not let the processes of former sessions end ({pids}"
                "); see what disk or machine they wait for"
            )
        return None

    def _deliver(self, connection: Connection) -> None:
        with self._lock:
            session = self._session
            if connection.hello.purpose == "control" and session is None:
                self._session = WorkerSession(connection, log=self._log, on_met=self._note_met)
                self._sessions.put(self._session)
                return
        if session is None or connection.hello.purpose == "control":
            raise ConnectionError("the session has just ended")
        session.deliver(connection)

    def _note_misfit(self, misfit: Misfit) -> None:
        session = self._session
        if session is not None:
            session.note_misfit(misfit)

    # --- in a session's thread ---

    def _note_met(self, session: WorkerSession) -> None:
        with self._lock:
            if self._session is session:  # else it has ended meanwhile
                self._reception.spare(True)


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
    encrypted: bool = False,
    log: Callable[[str], None] | None = None,
    python: str = sys.executable,
    serve: str = SERVE,
    option: str = "--listen",
    remarks: Sequence[str] = (),
) -> bool:
    """Serves sessions until Ctrl-C, or one where ``once``. Whether Ctrl-C ended it.

    ``listen`` is ``host:port``; ``advertise`` the address by which other nodes reach this machine,
    where that is not the one given to the controller; ``cache`` the folder for packed weights,
    empty for none; ``isa`` the kernel variant, empty for the controller's or the fastest;
    ``encrypted``: no controller or node may talk to this machine from another one unless it
    encrypts; ``log`` gets a line for each session, and goes to standard error where it is None;
    ``option`` what an error about the address names; ``remarks`` are logged once it listens.
    ``ValueError`` with one sentence for a secret, folder or address that cannot be used.
    """
    log = log or Log("worker")
    worker = Worker(
        listen,
        secret,
        model_roots,
        advertise=advertise,
        threads=threads,
        cache=cache,
        isa=isa,
        encrypted=encrypted,
        log=log,
        python=python,
        serve=serve,
        option=option,
    )
    with worker:
        try:
            log(f"listening on {format_address(worker.address)}")
            for remark in remarks:
                log(remark)
            worker.serve_one()
            while not once:
                worker.serve_one()
        except KeyboardInterrupt:
            log("stopped")
            return True
    return False


def advertised(address: Address | str | None) -> Address | None:
    """What ``--advertise`` says; ``ValueError`` for what nobody can connect to."""
    if isinstance(address, str):
        address = parse_address(address)
    if address is not None and is_unspecified(address[0]):
        raise ValueError(
            f"--advertise {format_address(address)} stands for all addresses of a machine; give "
            "the one by which the other nodes reach this machine"
        )
    return address


def _output() -> int:
    """Where a node's process writes: to standard error, if this process has one."""
    try:
        os.fstat(_STANDARD_ERROR)
    except OSError:
        return subprocess.DEVNULL
    return _STANDARD_ERROR
