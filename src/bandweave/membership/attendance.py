"""Attendance: a cluster whose head is another process, as a controller sees it.

The head may go: whoever runs a model goes on with the members that were known last. Knows no
models.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.membership.caller import Caller
from bandweave.membership.messages import (
    MOST_REPORT_BYTES,
    AskStatus,
    Attend,
    Beat,
    Machine,
    Report,
    Roster,
    Status,
)
from bandweave.mesh.address import Address, format_address, parse_address
from bandweave.mesh.channel import Channel
from bandweave.messages import Message, decode, encode

_FIRST_SECONDS = 10.0


class HeadError(HandshakeError, ValueError):
    """A head that cannot be reached or refuses, and what to do about it."""


class Attendance:
    """A ``Membership``. ``attend`` makes one; close it when done."""

    def __init__(self, head: Address | str, secret: bytes, name: str) -> None:
        self._head = parse_address(head) if isinstance(head, str) else head
        self.secret, self._name = secret, name
        self.cluster = ""
        self._machines: tuple[Machine, ...] = ()
        self._heard, self.changed_at = False, time.monotonic()
        self._trouble, self._lasting = "", False
        self._report: Callable[[], str] | None = None
        self._sent = ""
        self._changed = threading.Condition()
        self._caller = Caller(
            self._head,
            secret,
            first=lambda: Attend(name=name, pid=os.getpid()),
            hear=self._hear,
            change=self._change,
            beat=self._beat,
        )

    @property
    def where(self) -> str:
        return format_address(self._head)

    @property
    def machines(self) -> tuple[Machine, ...]:
        return self._machines

    def wait(self, known: tuple[Machine, ...], seconds: float) -> tuple[Machine, ...]:
        with self._changed:
            self._changed.wait_for(lambda: self._machines != known, seconds)
            return self._machines

    def tell(self, report: Callable[[], str]) -> None:
        self._report = report

    def close(self) -> None:
        self._caller.close()

    def begin(self) -> None:
        """Waits for the head's first word. ``HeadError`` where it does not come."""
        self._caller.start()
        with self._changed:
            self._changed.wait_for(lambda: self._heard or self._lasting, _FIRST_SECONDS)
            if self._heard:
                return
            trouble = self._trouble or "it says nothing"
        self.close()
        raise HeadError(
            f"the head at {self.where} cannot be used: {trouble}; is `bandweave up` running there?"
        )

    # --- in the caller's thread ---

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("type") == Roster.TYPE:
            roster = decode(Roster, message)
            with self._changed:
                self.cluster = self._caller.cluster
                self._machines, self._heard = roster.machines, True
                self.changed_at = time.monotonic() - roster.seconds
                self._changed.notify_all()

    def _change(self, trouble: str, lasting: bool) -> None:
        with self._changed:
            self._trouble, self._lasting = trouble, lasting
            self._sent = ""
            self._changed.notify_all()

    def _beat(self) -> Message:
        """A sign of life: what goes on here, where that has changed."""
        text = "" if self._report is None else self._report()
        if text == self._sent or len(text) > MOST_REPORT_BYTES:
            return Beat()
        self._sent = text
        return Report(text=text)


def attend(head: Address | str, secret: bytes, name: str) -> Attendance:
    """The cluster of a head. ``HeadError`` where that cannot be reached or refuses."""
    found = Attendance(head, secret, name)
    found.begin()
    return found


def ask_status(head: Address | str, secret: bytes, seconds: float = _FIRST_SECONDS) -> Status:
    """All that a head knows. Errors as ``attend``."""
    address = parse_address(head) if isinstance(head, str) else head
    name = f"the head at {format_address(address)}"
    own = Hello(purpose="cluster", node=NO_NODE, session="")
    try:
        made = connect(address, secret, own, name=name, timeout=seconds)
        channel = Channel(
            made.socket, name, max_message_bytes=8 * MOST_REPORT_BYTES, keys=made.keys
        )
        try:
            channel.send(encode(AskStatus()))
            while (message := channel.receive(seconds)).get("type") == Beat.TYPE:
                pass
            return decode(Status, message)
        finally:
            channel.close()
    except OSError as error:
        raise HeadError(f"{error}; is `bandweave up` running there?") from error
