"""Door: where the machines of a cluster announce themselves to its head, and are kept count of.

A worker is a member as long as its connection stands and it gives signs of life. Whoever runs a
model on the members is told when they change. Nothing of it is needed by a model that runs: steps
and requests go other ways. Knows no models.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue

from bandweave.handshake.connection import Connection
from bandweave.handshake.hello import NO_NODE, Hello, Refusal
from bandweave.handshake.reception import Reception
from bandweave.membership.membership import BEAT_SECONDS
from bandweave.membership.messages import (
    MOST_MEMBERS,
    MOST_REPORT_BYTES,
    Controller,
    Farewell,
    Machine,
    Member,
    Roster,
    Status,
)
from bandweave.membership.visitor import Visitor
from bandweave.mesh.address import Address, bind, format_address, parse_address
from bandweave.messages import MessageError

_MOST_VISITORS = MOST_MEMBERS + 64
_MOST_TOLD_BYTES = MOST_REPORT_BYTES // 2  # of reports, in one status
_MOST_GONE = 16  # sentences on machines that went, kept for the status


def cluster_only(hello: Hello) -> Refusal | None:
    """What others are told who come to a door."""
    if hello.purpose != "cluster":
        return Refusal(reason="it is the head of a cluster, and no worker; join it, or ask it")
    return None


class Door:
    """Listens from the time that it is made until it is closed. A ``Membership``; ``log`` gets a
    sentence for each machine that comes or goes. ``ValueError`` names ``option`` where the address
    cannot be had."""

    def __init__(
        self,
        listen: Address | str,
        secret: bytes,
        *,
        advertise: str = "",
        log: Callable[[str], None] = lambda sentence: None,
        option: str = "--cluster-listen",
    ) -> None:
        self.secret, self._log, self._advertise = secret, log, advertise
        self.cluster = secrets.token_hex(16)
        where = parse_address(listen, listening=True) if isinstance(listen, str) else listen
        self._visitors: dict[int, Visitor] = {}  # by descriptor
        self._order: list[str] = []  # workers, as they came first
        self._machines: tuple[Machine, ...] = ()
        self.changed_at = time.monotonic()
        self._gone: list[str] = []
        self._notes: dict[str, str] = {}
        self._own_report: Callable[[], str] | None = None
        self._changed = threading.Condition()
        self._new: SimpleQueue[Connection] = SimpleQueue()
        self._over = False
        self._socket = bind(where, option=option)
        self._wake, self._wake_peer = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_peer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        own = Hello(purpose="cluster", node=NO_NODE, session="", identity=self.cluster)
        try:
            self._reception = Reception(
                self._socket,
                secret,
                own=lambda: own,
                admit=cluster_only,
                deliver=self._deliver,
                log=log,
            )
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    # --- for whoever owns it ---

    @property
    def address(self) -> Address:
        """Host and port that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def where(self) -> str:
        return self._advertise or format_address(self.address)

    @property
    def machines(self) -> tuple[Machine, ...]:
        return self._machines

    def wait(self, known: tuple[Machine, ...], seconds: float) -> tuple[Machine, ...]:
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._machines != known, seconds)
            return self._machines

    def tell(self, report: Callable[[], str]) -> None:
        self._own_report = report

    def note(self, who: str, sentence: str) -> None:
        """What somebody who places workers has to say of it; empty to say nothing any more."""
        self._notes = {key: value for key, value in self._notes.items() if key != who}
        if sentence:
            self._notes = {**self._notes, who: sentence}

    def take_down(self) -> None:
        """Tells all members that the cluster is over: those end that were started for it."""
        for visitor in list(self._visitors.values()):
            if visitor.machine is not None:
                with contextlib.suppress(OSError, MessageError):
                    visitor.tell(Farewell())

    def close(self) -> None:
        with self._changed:
            first, self._over = not self._over, True
            self._changed.notify_all()
        if not first:
            return
        self._reception.stop()
        self._wake_up()
        self._thread.join()
        for visitor in self._visitors.values():
            visitor.channel.close()
        with contextlib.suppress(Empty):
            while True:
                self._new.get_nowait().socket.close()
        self._selector.close()
        for sock in (self._socket, self._wake, self._wake_peer):
            sock.close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- in the reception's thread ---

    def _deliver(self, connection: Connection) -> None:
        self._new.put(connection)
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            self._wake_peer.send(b"x")

    # --- in the thread of its own ---

    def _run(self) -> None:
        next_beat = time.monotonic()
        while not self._over:
            for key, _ in self._selector.select(max(0.0, next_beat - time.monotonic())):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                else:
                    self._hear(key.data)
            self._take_new()
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat = time.monotonic() + BEAT_SECONDS

    def _take_new(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                visitor = Visitor(self._new.get_nowait())
                if len(self._visitors) >= _MOST_VISITORS:
                    visitor.channel.close()
                    continue
                self._visitors[visitor.channel.fileno()] = visitor
                self._selector.register(visitor.channel.fileno(), selectors.EVENT_READ, visitor)
                self._hear(visitor)

    def _hear(self, visitor: Visitor) -> None:
        if self._visitors.get(visitor.channel.fileno()) is not visitor:
            return  # dropped since the selector spoke of it
        try:
            new = visitor.read()
            if visitor.left:
                self._drop(visitor, "left")
                return
            if new and visitor.machine is not None:
                if self._is_full(visitor.machine):
                    self._drop(visitor, f"is one too many: a cluster has {MOST_MEMBERS} machines")
                    return
                self._welcome(visitor, visitor.machine)
            elif new:
                visitor.tell(self._roster())
            for _ in range(visitor.asks):
                visitor.tell(self._status())
            visitor.asks = 0
        except MessageError as error:
            self._drop(visitor, f"sent a message that makes no sense: {error}")
        except OSError:
            self._drop(visitor, "is gone")

    def _is_full(self, machine: Machine) -> bool:
        others = sum(one.worker != machine.worker for one in self._machines)
        return others >= MOST_MEMBERS

    def _beat(self) -> None:
        for visitor in list(self._visitors.values()):
            if visitor.silent:
                self._drop(
                    visitor, "has given no sign of life; its machine or the way to it is out"
                )
                continue
            try:
                visitor.beat()
            except OSError:
                self._drop(visitor, "is gone")

    def _welcome(self, visitor: Visitor, machine: Machine) -> None:
        for other in list(self._visitors.values()):
            before = None if other is visitor else other.machine
            if before is not None and before.worker == machine.worker:  # it dialled again
                other.machine = None
                self._drop(other, "")
        if machine.worker not in self._order:
            there = {one.worker for one in self._machines}
            gone = [worker for worker in self._order if worker not in there]
            forgotten = set(gone[:-MOST_MEMBERS])
            kept = [worker for worker in self._order if worker not in forgotten]
            self._order = [*kept, machine.worker]
        self._log(f"{_name(machine)} has joined")
        self._count()

    def _drop(self, visitor: Visitor, why: str) -> None:
        descriptor = visitor.channel.fileno()
        self._visitors.pop(descriptor, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)
        visitor.channel.close()
        if visitor.machine is not None:
            sentence = f"{_name(visitor.machine)} {why}"
            self._gone = [*self._gone[1 - _MOST_GONE :], sentence]
            self._log(sentence)
            self._count()

    def _count(self) -> None:
        """Tells all who run models on the members who they are now."""
        found = [one.machine for one in self._visitors.values() if one.machine is not None]
        machines = tuple(sorted(found, key=lambda one: self._order.index(one.worker)))
        with self._changed:
            self._machines, self.changed_at = machines, time.monotonic()
            self._changed.notify_all()
        for visitor in list(self._visitors.values()):
            if visitor.attend is not None:
                try:
                    visitor.tell(self._roster())
                except (OSError, MessageError):
                    self._drop(visitor, "is gone")

    def _roster(self) -> Roster:
        return Roster(machines=self._machines, seconds=time.monotonic() - self.changed_at)

    def _status(self) -> Status:
        now = time.monotonic()
        visitors = list(self._visitors.values())
        since = {one.machine.worker: one.began for one in visitors if one.machine is not None}
        controllers = [one for one in (visitor.controller() for visitor in visitors) if one]
        if self._own_report is not None:
            controllers.insert(
                0, Controller(name="", pid=0, peer=self.where, report=self._own_report())
            )
        return Status(
            cluster=self.cluster,
            members=tuple(
                Member(machine=one, seconds=now - since.get(one.worker, now))
                for one in self._machines
            ),
            gone=tuple(self._gone),
            controllers=_told(controllers),
            notes=self._notes,
        )


def _name(machine: Machine) -> str:
    return f"{machine.host} ({machine.addresses[0]})"


def _told(controllers: Sequence[Controller]) -> tuple[Controller, ...]:
    """With as many of their reports as one message holds."""
    told, room = list[Controller](), _MOST_TOLD_BYTES
    for one in controllers:
        room -= len(json.dumps(one.report))
        told.append(one if room >= 0 else replace(one, report=""))
    return tuple(told)
