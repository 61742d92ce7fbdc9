"""Announcer: a worker's tie to the head of the cluster that it joined.

It tells the head where the worker is, and tells the worker whose controllers to serve: those of its
own head, and of no other. Knows no models.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from bandweave import __version__
from bandweave.handshake.hello import Hello, Refusal
from bandweave.host.machine import available_memory_bytes, total_memory_bytes, usable_cpus
from bandweave.host.processor import processor_name
from bandweave.membership.caller import Caller
from bandweave.membership.messages import MOST_ADDRESSES, Announcement, Farewell, Machine
from bandweave.mesh.address import (
    Address,
    format_address,
    is_unspecified,
    parse_address,
)
from bandweave.mesh.host import host_id
from bandweave.mesh.interfaces import own_hosts
from bandweave.mesh.printable import printable
from bandweave.nodes.worker import Worker

#: A worker that a program placed ends itself where its head has been gone for so long, and nobody
#: uses it: no person would look for it.
ABANDONED_SECONDS = 600.0


class Announcer:
    """Announces a worker from ``start`` to ``close``. ``log`` hears when the head comes and goes;
    ``on_end`` is called, in another thread, when the cluster is taken down and the worker
    ``ends`` with it."""

    def __init__(
        self,
        worker: Worker,
        head: Address | str,
        secret: bytes,
        *,
        advertise: Address | None = None,
        threads: int | None = None,
        placed_by: str = "",
        ends: bool = False,
        log: Callable[[str], None] = lambda sentence: None,
        on_end: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head = parse_address(head) if isinstance(head, str) else head
        if is_unspecified(self._head[0]):
            raise ValueError(
                f"--join {format_address(self._head)} stands for all addresses of a machine; give "
                "the one by which this machine reaches the head"
            )
        self._worker, self._advertise = worker, advertise
        self._threads, self._placed_by, self._ends = threads, placed_by, ends
        self._log, self._on_end, self._clock = log, on_end, clock
        self._lost_at = clock()
        self.trouble = "it has not been reached yet"
        self._lasting = False
        self._told = ""
        self._changed = threading.Condition()
        self._caller = Caller(
            self._head,
            secret,
            first=lambda: Announcement(machine=self.describe()),
            hear=self._hear,
            change=self._change,
            identity=worker.identity,
        )

    def describe(self) -> Machine:
        """What the head is told of this machine, as it is now."""
        return Machine(
            worker=self._worker.identity,
            host=printable(socket.gethostname())[:256],
            host_id=host_id(),
            addresses=announced(self._worker.address, self._advertise),
            processor=printable(processor_name())[:256],
            cpus=max(1, len(usable_cpus())),
            threads=self._threads or 0,
            memory_bytes=available_memory_bytes() or 0,
            total_bytes=total_memory_bytes() or 0,
            version=__version__,
            placed_by=self._placed_by,
            ends=self._ends,
        )

    def admit(self, hello: Hello) -> Refusal | None:
        """Whether a controller may have the worker: only those of its own cluster."""
        cluster = self._caller.cluster
        if cluster and hello.identity == cluster:
            return None
        head = format_address(self._head)
        if not hello.identity:
            return Refusal(
                reason=f"it belongs to the cluster of the head at {head}, which alone may use it; "
                f"ask there with --cluster {head}, or let it leave (`bandweave leave`)"
            )
        return Refusal(
            reason=f"it belongs to the cluster of the head at {head}, and to no other; let it "
            "leave that one first (`bandweave leave`)"
        )

    def start(self) -> None:
        self._caller.start()

    def wait(self, seconds: float) -> str:
        """Waits until the head has been told, or something is wrong that waiting cannot mend.
        What stands in the way; empty where nothing does."""
        with self._changed:
            self._changed.wait_for(lambda: not self.trouble or self._lasting, seconds)
            return self.trouble

    def close(self) -> None:
        """Says farewell. May be called more than once."""
        self._caller.close(Farewell())

    # --- in the caller's thread ---

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("type") == Farewell.TYPE and self._ends:
            self._log(f"the cluster of {format_address(self._head)} has been taken down")
            self._on_end()

    def _change(self, trouble: str, lasting: bool) -> None:
        head = format_address(self._head)
        said = f"joined the head at {head}"
        if trouble:
            said = f"the head at {head} is out of reach: {trouble}; trying again"
        with self._changed:
            if not (trouble and self.trouble):
                self._lost_at = self._clock()
            self.trouble, self._lasting = trouble, lasting
            self._changed.notify_all()
        if trouble and self._placed_by and self._clock() - self._lost_at > ABANDONED_SECONDS:
            if not self._worker.busy:
                self._log(f"nobody has been there for {ABANDONED_SECONDS:.0f} s; ending")
                self._on_end()
            return
        if said != self._told:  # not at every attempt
            self._told = said
            self._log(said)


def announced(listening: Address, advertise: Address | None) -> tuple[str, ...]:
    """The addresses at which others may reach a worker that listens there."""
    if advertise is not None:
        return (format_address(advertise),)
    host, port = listening
    if not is_unspecified(host):
        return (format_address(listening),)
    hosts = list(own_hosts())
    if host == "0.0.0.0":  # IPv4 alone
        hosts = [one for one in hosts if ":" not in one]
    if not hosts:  # there is no network, and the head is this machine
        hosts.append("127.0.0.1")
    return tuple(format_address((one, port)) for one in hosts[:MOST_ADDRESSES])
