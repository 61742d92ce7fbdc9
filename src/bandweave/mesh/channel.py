"""Channel: messages over a connected stream socket, each a JSON object.

On the wire: ``"bwv1"``, the length of the JSON text and a zero (32-bit, little-endian), the JSON
text; where the channel has keys all of that in records (``sealing``). Knows no message's meaning,
no secrets, no addresses. It never reads past the message at hand, so that the socket can be handed
on after any message, and a selector on ``fileno()`` tells the truth.
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
from bandweave.mesh.sealing import Keys, Opener, Sealer, SealError
from bandweave.mesh.tcp_options import silence

_PREFIX = struct.Struct("<4sII")
_MAGIC = b"bwv1"
_READ_BYTES = 64 << 10

MAX_MESSAGE_BYTES = 16 << 20
LAST_WORD = "last word"  # of the keys for what is said in the place of a process that has died


class ChannelError(OSError):
    """A peer that does not keep to the format. Names the peer."""


class ChannelClosed(ChannelError, ConnectionError):
    """The connection has ended, by the peer or by ourselves. Names the peer."""


class ChannelTampered(ChannelError):
    """What came is not what the peer sent. Names the peer."""


class Channel:
    """Messages to and from one peer. Owns the socket.

    Any thread may send; one thread at a time may receive or poll. ``peer`` is the name that
    errors use. A message that cannot be sent within ``send_timeout`` seconds breaks the channel;
    None waits for as long as the connection stands. With ``keys`` all is sealed.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        send_timeout: float | None = 30.0,
        keys: Keys | None = None,
    ) -> None:
        sock.setblocking(False)
        self.peer = peer
        self._socket = sock
        self._limit = max_message_bytes
        self._send_timeout = send_timeout
        self._send_lock = threading.Lock()
        self._unsent = b""  # the rest of an offered message that was taken in part
        self._send_failure: ChannelError | None = None
        self._receive_failure: ChannelError | None = None
        self._closed = False
        self._readable = select.poll()
        self._readable.register(sock.fileno(), select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock.fileno(), select.POLLOUT)
        self._piece = bytearray()  # of a record
        self._buffer = bytearray()
        self._wanted, self._in_body = _PREFIX.size, False
        self._keys: Keys | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        if keys is not None:
            self.seal(keys)

    def seal(self, keys: Keys) -> None:
        """From now on all that is sent is sealed, and what comes must be. Between two messages."""
        self._keys = keys
        self._sealer, self._opener = Sealer(keys.send), Opener(keys.receive)

    def send(self, message: dict[str, Any], *, timeout: float | None = None) -> None:
        """Sends one message; returns once the system has taken it whole.

        ``ValueError`` for a message over the limit, ``ChannelClosed`` where the peer has gone,
        ``TimeoutError`` where it takes nothing for ``timeout`` (else ``send_timeout``) seconds.
        """
        frame = self._frame(message)
        limit = self._send_timeout if timeout is None else timeout
        if not self._send_lock.acquire(timeout=-1 if limit is None else limit):
            raise TimeoutError(f"{self.peer} took no message for {limit:g} s")
        try:
            self._send_whole(memoryview(self._unsent + self._sealed(frame)), limit)
        finally:
            self._send_lock.release()

    def offer(self, message: dict[str, Any]) -> bool:
        """Sends a message that may be lost: at once, or not at all where the peer is slow to take
        what was sent before. Whether it was sent. Errors as ``send``, but for the time limit."""
        frame = self._frame(message)
        if not self._send_lock.acquire(blocking=False):
            return False
        try:
            if self._unsent and self._send_some(self._unsent):
                return False
            if not self._writable.poll(0):
                return False
            # What is sealed has its place among the records, and goes before all others.
            frame = self._sealed(frame)
            left = self._send_some(frame)
            if self._sealer is not None:
                self._unsent = left
            return self._sealer is not None or len(left) < len(frame)
        finally:
            self._send_lock.release()

    def _frame(self, message: dict[str, Any]) -> bytes:
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) > self._limit:
            raise ValueError(
                f"a message of {len(text)} bytes to {self.peer} is over the limit of "
                f"{self._limit} bytes"
            )
        return _PREFIX.pack(_MAGIC, len(text), 0) + text

    def _sealed(self, frame: bytes) -> bytes:
        return frame if self._sealer is None else self._sealer.seal(frame)

    def _send_some(self, data: bytes) -> bytes:
        """What is left of ``data``; remembered where some of it went."""
        if self._send_failure is not None:
            raise self._send_failure
        try:
            left = data[self._socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError as error:
            self._send_failure = self._gone(error)
            raise self._send_failure from error
        self._unsent = left
        return left

    def _send_whole(self, data: memoryview, limit: float | None) -> None:
        if self._send_failure is not None:
            raise self._send_failure
        self._unsent = b""
        try:
            while data:
                data = data[self._send_once(data, limit) :]
        except KeyboardInterrupt:
            self._unsent = bytes(data)  # goes on before anything else: half of it may be out
            raise

    def _send_once(self, data: memoryview, limit: float | None) -> int:
        """Bytes that the system has taken, which may be none."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            if self._writable.poll(None if limit is None else math.ceil(limit * 1000)):
                return 0
            # Half a message may be out: nothing sensible can follow it.
            self._send_failure = ChannelClosed(f"the channel to {self.peer} is broken")
            raise TimeoutError(f"{self.peer} took no message for {limit:g} s") from None
        except OSError as error:
            self._send_failure = self._gone(error)
            raise self._send_failure from error

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message.

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
        """Reads what has come; True once the buffer is the whole text of a message."""
        if self._receive_failure is not None:
            raise self._receive_failure
        try:
            while True:
                missing = self._wanted - len(self._buffer)
                if missing <= 0 and not self._in_body:
                    self._start_body()
                    continue
                if missing < 0:  # records end where messages do
                    raise ChannelError(f"{self.peer} does not speak the protocol of bandweave")
                if missing == 0:
                    return True
                if self._opener is not None:
                    self._buffer += self._receive_sealed(self._opener)
                    continue
                # The buffer grows with what has come, not with what a prefix claims.
                self._buffer += self._receive_some(missing)
        except BlockingIOError:
            return False
        except ChannelError as error:
            self._receive_failure = error
            raise
        except OSError as error:
            self._receive_failure = self._gone(error)
            raise self._receive_failure from error

    def _receive_some(self, most: int) -> bytes:
        data = self._socket.recv(min(most, _READ_BYTES))
        if not data:
            raise self._gone(None)
        return data

    def _receive_sealed(self, opener: Opener) -> bytes:
        """What the next piece of a record holds."""
        while len(self._piece) < opener.wanted:
            self._piece += self._receive_some(opener.wanted - len(self._piece))
        piece, self._piece = self._piece, bytearray()
        try:
            return opener.open(piece)
        except SealError:
            pass
        # The process at the other end may have died, and another speaks in its place.
        assert self._keys is not None
        self._opener = Opener(self._keys.derive(LAST_WORD).receive)
        try:
            if opener.in_record or len(piece) != self._opener.wanted:
                raise SealError
            return self._opener.open(piece)
        except SealError:
            raise ChannelTampered(
                f"the connection to {self.peer} was tampered with or is damaged: what came is not "
                "what was sent"
            ) from None

    def _start_body(self) -> None:
        magic, length, zero = _PREFIX.unpack_from(self._buffer)
        if magic != _MAGIC or zero:
            raise ChannelError(f"{self.peer} does not speak the protocol of bandweave")
        if not 2 <= length <= self._limit:
            raise ChannelError(
                f"{self.peer} announced a message of {length} bytes; the limit is "
                f"{self._limit} bytes"
            )
        self._buffer = self._buffer[_PREFIX.size :]
        self._wanted, self._in_body = length, True

    def _take(self) -> dict[str, Any]:
        text = self._buffer
        self._buffer = bytearray()
        self._wanted, self._in_body = _PREFIX.size, False
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._receive_failure = ChannelError(f"{self.peer} sent text that is no JSON object")
            raise self._receive_failure
        return message

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

    def silence(self) -> float:
        """Seconds since the peer's machine last gave a sign of life; see ``tcp_options``."""
        return silence(self._socket)

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
