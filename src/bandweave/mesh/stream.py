"""Stream: bytes over a connected socket, sealed where it has keys. Blocks, up to the socket's
timeout. Knows no messages."""

from __future__ import annotations

import contextlib
import socket
from typing import Self

from bandweave.mesh.sealing import Keys, Opener, Sealer, SealError

_READ_BYTES = 256 << 10


class TamperedError(ConnectionError):
    """What came over a sealed connection is not what was sent."""


class Stream:
    """Owns the socket. One thread at a time sends, one receives."""

    def __init__(self, sock: socket.socket, keys: Keys | None = None) -> None:
        self._socket = sock
        self._sealer = None if keys is None else Sealer(keys.send)
        self._opener = None if keys is None else Opener(keys.receive)
        self._sealed = bytearray()  # has come, and is to be opened
        self._plain = bytearray()

    def settimeout(self, seconds: float | None) -> None:
        """For every wait from now on."""
        self._socket.settimeout(seconds)

    def send(self, data: bytes | memoryview) -> None:
        """Returns once the system has taken all of it. Errors as ``socket.sendall``."""
        self._socket.sendall(data if self._sealer is None else self._sealer.seal(data))

    def receive(self, count: int) -> bytearray:
        """Exactly so many bytes; ``ConnectionError`` where the connection ends before."""
        if self._opener is None:
            data = bytearray(count)
            view = memoryview(data)
            while view:
                got = self._socket.recv_into(view)
                if not got:
                    raise ConnectionError("it closed the connection")
                view = view[got:]
            return data
        while len(self._plain) < count:
            self._open(self._opener)
        data = self._plain[:count]
        del self._plain[:count]
        return data

    def _open(self, opener: Opener) -> None:
        """Opens what has come, after one read where that is not a whole piece."""
        if len(self._sealed) < opener.wanted:
            more = self._socket.recv(_READ_BYTES)
            if not more:
                raise ConnectionError("it closed the connection")
            self._sealed += more
        at = 0
        try:
            with memoryview(self._sealed) as view:
                while len(view) - at >= opener.wanted:
                    end = at + opener.wanted
                    self._plain += opener.open(view[at:end])
                    at = end
        except SealError:
            raise TamperedError("the connection was tampered with or is damaged") from None
        del self._sealed[:at]

    def hang_up(self) -> None:
        """Ends both directions, without giving up the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
