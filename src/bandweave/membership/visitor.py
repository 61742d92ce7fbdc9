"""Visitor: one connection at a head's door, from its first word to its end. Knows no other one."""

from __future__ import annotations

import time

from bandweave.handshake.connection import Connection
from bandweave.membership.membership import SILENT_SECONDS
from bandweave.membership.messages import (
    MOST_REPORT_BYTES,
    Announcement,
    AskStatus,
    Attend,
    Beat,
    Controller,
    Farewell,
    Machine,
    Report,
)
from bandweave.mesh.channel import Channel
from bandweave.messages import Message, MessageError, decode_one, encode

_SEND_SECONDS = 1.0
_AT_ONCE = 64  # messages: then it is the others' turn
_FIRST = (Announcement, Attend, AskStatus, Beat)
_KINDS = (*_FIRST, Farewell, Report)


class Visitor:
    """A worker (``machine`` is set), a controller (``attend`` is) or somebody who asks. ``heard``
    is when it last said anything, of ``time.monotonic``; ``left``: whether it said farewell."""

    def __init__(self, connection: Connection) -> None:
        self.peer = connection.peer
        self.channel = Channel(
            connection.socket,
            connection.peer,
            max_message_bytes=MOST_REPORT_BYTES + 4096,
            keys=connection.keys,
        )
        self.began = self.heard = time.monotonic()
        self.machine: Machine | None = None
        self.attend: Attend | None = None
        self.report = ""
        self.left = False
        self.asks = 0  # questions that are not answered yet

    def read(self) -> bool:
        """Takes in what has come, or some of it; whether it became a member or a controller by it.
        ``OSError`` where it is gone, ``MessageError`` where it makes no sense."""
        new = False
        for _ in range(_AT_ONCE):
            if not self.channel.poll():
                return new
            message = self.channel.receive(0.0)
            first = self.machine is None and self.attend is None
            said = decode_one(_FIRST if first else _KINDS, message)
            if said is None:
                raise MessageError(f"{str(message.get('type'))[:40]!r} is nothing to say at a door")
            self.heard = time.monotonic()
            match said:
                case Announcement() | Attend() if not first:
                    raise MessageError("it has said already what it is")
                case Announcement():
                    self.machine, new = said.machine, True
                case Attend():
                    self.attend, new = said, True
                case Report():
                    self.report = said.text
                case AskStatus():
                    self.asks += 1
                case Farewell():
                    self.left = True
                    return new
                case Beat():
                    pass
        return new

    def tell(self, message: Message) -> None:
        """``OSError`` where it is gone or does not listen; ``MessageError`` where there is more to
        tell than a message may hold."""
        try:
            self.channel.send(encode(message), timeout=_SEND_SECONDS)
        except ValueError as error:
            raise MessageError(str(error)) from error

    def beat(self) -> None:
        """A sign of life, if there is room for one."""
        self.channel.offer(encode(Beat()))

    @property
    def silent(self) -> bool:
        """Whether it has given no sign of life for so long that it must be gone."""
        return time.monotonic() - self.heard > SILENT_SECONDS

    def controller(self) -> Controller | None:
        """As a status shows it; None where it is none."""
        if self.attend is None:
            return None
        return Controller(
            name=self.attend.name, pid=self.attend.pid, peer=self.peer, report=self.report
        )
