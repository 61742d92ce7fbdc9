"""Channel: messages over a connected stream socket, each a JSON object and an optional payload.

On the wire: ``"bwv1"``, the length of the JSON text and of the payload (32-bit, little-endian), the
JSON text, the payload. Knows no message's meaning, no secrets, no addresses. It never reads past
the message at hand, so that the socket can be handed on after any message, and a selector on
``fileno()`` tells the truth.
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import struct
import threading
import time
from typing import Any

from bandweave.mesh.hangup import wait_hangup

_PREFIX = struct.Struct("<4sII")
_MAGIC = b"bwv1"

MAX_HEADER_BYTES = 16 << 20
MAX_PAYLOAD_BYTES = 1 << 30


class ChannelError(OSError):
    """A peer that does not keep to the format. Names the peer."""


class ChannelClosed(ChannelError, ConnectionError):
    """The connection has ended, by the peer or by ourselves. Names the peer."""


class Channel:
    """Messages to and from one peer. Owns the socket.

    Any thread may send; one thread at a time may receive or poll. ``peer`` is the name that
    errors use. A message that cannot be sent within ``send_timeout`` seconds breaks the channel.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        *,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        send_timeout: float = 30.0,
    ) -> None:
        sock.setblocking(False)
        self.peer = peer
        self._socket = sock
        self._limits = (max_header_bytes, max_payload_bytes)
        self._send_timeout = send_timeout
        self._send_lock = threading.Lock()
        self._send_failure: ChannelError | None = None
        self._receive_failure: ChannelError | None = None
        self._closed = False
        self._readable = select.poll()
        self._readable.register(sock.fileno(), select.POLLIN)
        self._buffer = bytearray(_PREFIX.size)
        self._filled = 0
        self._header_bytes = 0  # above zero while the buffer is a message's body

    def send(
        self,
        message: dict[str, Any],
        payload: bytes | bytearray | memoryview = b"",
        *,
        timeout: float | None = None,
    ) -> None:
        """Sends one message; returns once the system has taken it whole.

        ``ValueError`` for a message over the limits, ``ChannelClosed`` where the peer has gone,
        ``TimeoutError`` where it takes nothing for ``timeout`` (else ``send_timeout``) seconds.
        """
        header = json.dumps(message, separators=(",", ":")).encode()
        view = memoryview(payload)
        if len(header) > self._limits[0] or view.nbytes > self._limits[1]:
            raise ValueError(
                f"a message of {len(header)} + {view.nbytes} bytes to {self.peer} is over the "
                f"limit of {self._limits[0]} + {self._limits[1]} bytes"
            )
        parts = [memoryview(_PREFIX.pack(_MAGIC, len(header), view.nbytes) + header)]
        if view.nbytes:
            parts.append(view.cast("B"))
        limit = self._send_timeout if timeout is None else timeout
        if not self._send_lock.acquire(timeout=limit):
            raise TimeoutError(f"{self.peer} took no message for {limit:g} s")
        try:
            self._send_parts(parts, limit)
        finally:
            self._send_lock.release()

    def _send_parts(self, parts: list[memoryview], limit: float) -> None:
        if self._send_failure is not None:
            raise self._send_failure
        writable: Any = None
        while parts:
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                if writable is None:
                    writable = select.poll()
                    writable.register(self._socket.fileno(), select.POLLOUT)
                if not writable.poll(math.ceil(limit * 1000)):
                    # Half a message may be out: nothing sensible can follow it.
                    self._send_failure = ChannelClosed(f"the channel to {self.peer} is broken")
                    raise TimeoutError(f"{self.peer} took no message for {limit:g} s") from None
                continue
            except OSError as error:
                self._send_failure = self._gone(error)
                raise self._send_failure from error
            while parts and sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            if parts and sent:
                parts[0] = parts[0][sent:]

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next message and its payload.

        ``timeout`` is in seconds, None for as long as the connection stands. ``TimeoutError`` where
        no whole message came in time (what came of it is kept for the next call), ``ChannelClosed``
        where the connection ended, ``ChannelError`` where the peer sent something else.
        """
        deadline: float | None = None
        while not self._pump():
            if timeout is None:
                self._readable.poll()
                continue
            now = time.monotonic()
            if deadline is None:
                deadline = now + timeout
            if now >= deadline:
                raise TimeoutError(f"{self.peer} did not answer within {timeout:g} s")
            self._readable.poll(math.ceil((deadline - now) * 1000))
        return self._take()

    def poll(self) -> bool:
        """Whether ``receive`` would return or raise at once. Does not block."""
        try:
            return self._pump()
        except ChannelError:
            return True

    def _pump(self) -> bool:
        """Reads what has come; True once the buffer is the whole body of a message."""
        if self._receive_failure is not None:
            raise self._receive_failure
        try:
            while True:
                missing = len(self._buffer) - self._filled
                if missing == 0:
                    if self._header_bytes:
                        return True
                    self._start_body()
                    continue
                into = memoryview(self._buffer)[self._filled :] if self._filled else self._buffer
                count = self._socket.recv_into(into)
                if count == 0:
                    raise self._gone(None)
                self._filled += count
        except BlockingIOError:
            return False
        except ChannelError as error:
            self._receive_failure = error
            raise
        except OSError as error:
            self._receive_failure = self._gone(error)
            raise self._receive_failure from error

    def _start_body(self) -> None:
        magic, header_bytes, payload_bytes = _PREFIX.unpack(self._buffer)
        if magic != _MAGIC:
            raise ChannelError(f"{self.peer} does not speak the protocol of bandweave")
        if not 2 <= header_bytes <= self._limits[0] or payload_bytes > self._limits[1]:
            raise ChannelError(
                f"{self.peer} announced a message of {header_bytes} + {payload_bytes} bytes; the "
                f"limit is {self._limits[0]} + {self._limits[1]} bytes"
            )
        self._buffer = bytearray(header_bytes + payload_bytes)
        self._filled, self._header_bytes = 0, header_bytes

    def _take(self) -> tuple[dict[str, Any], bytes]:
        body, split = self._buffer, self._header_bytes
        self._buffer, self._filled, self._header_bytes = bytearray(_PREFIX.size), 0, 0
        try:
            message = json.loads(body[:split])
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._receive_failure = ChannelError(f"{self.peer} sent text that is no JSON object")
            raise self._receive_failure
        return message, bytes(memoryview(body)[split:]) if len(body) > split else b""

    def _gone(self, error: OSError | None) -> ChannelClosed:
        if self._closed:
            return ChannelClosed(f"the channel to {self.peer} is closed")
        if error is None or isinstance(error, ConnectionError):
            return ChannelClosed(f"{self.peer} closed the connection")
        return ChannelClosed(f"the connection to {self.peer} was lost: {error.strerror}")

    @property
    def closed(self) -> bool:
        """Whether this side has closed the channel."""
        return self._closed

    def hung_up(self) -> bool:
        """Whether either side has ended the connection, even if messages are still to be read."""
        try:
            return self._closed or wait_hangup(self._socket.fileno(), 0.0)
        except (OSError, ValueError):  # closed by another thread just now
            return True

    def fileno(self) -> int:
        """The socket's descriptor, readable when a message or its end has come; -1 once closed."""
        return self._socket.fileno()

    def detach(self) -> socket.socket:
        """Gives up the socket, in blocking mode. The channel counts as closed afterwards."""
        sock = socket.socket(fileno=self._socket.detach())
        sock.setblocking(True)
        self._closed = True
        return sock

    def hang_up(self) -> None:
        """Ends both directions without giving up the socket: the peer, and a thread of ours that
        receives, see the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection. May be called more than once, from any thread."""
        self._closed = True
        self.hang_up()
        self._socket.close()
