"""BoundedProtocol: uvicorn's HTTP/1.1, for clients that cannot be trusted to keep pace.

Uvicorn has no deadline for a request's headers, keeps any number of connections, and waits for
ever for those who do not take what they asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from bandweave.serving.http.connections import Connections
from bandweave.serving.http.limits import Limits

_FLUSH_SECONDS = 5.0  # that a connection has for its last words
_PROBE_AFTER_SECONDS, _PROBE_SECONDS, _PROBES = 30, 10, 3
_SENT_BYTES = 256 << 10  # that the system holds for a client that takes nothing; else megabytes
_LOG = logging.getLogger("bandweave.serving.http")


def protocols(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of each connection of one server."""
    connections = Connections(limits.connections)

    def make(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        return BoundedProtocol(config, server_state, app_state, _loop, connections, limits)

    return make


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None,
        connections: Connections,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _LOG
        self._open, self._limits = connections, limits
        self._deadline: asyncio.TimerHandle | None = None  # of headers, or of unwanted content
        self._taking: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _bound_socket(transport.get_extra_info("socket"), self._limits.taking)
        if self._open.add(self):
            self._deadline = self.loop.call_later(self._limits.header, self._too_late)
        else:
            self._refuse(503, "all connections of this server are in use; try again later")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None and not self._underway:
            self._deadline = self.loop.call_later(self._limits.header, self._too_late)
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # what came does not fit what is being sent
            self.abort()
            return
        self._settle()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self._limits.taking, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taking = _cancelled(self._taking)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.remove(self)
        self._deadline = _cancelled(self._deadline)
        self._taking = _cancelled(self._taking)
        self._last = _cancelled(self._last)
        super().connection_lost(exc)

    # --- what uvicorn calls ---

    def on_response_complete(self) -> None:
        self._open.idle(self)
        super().on_response_complete()
        if self.transport.is_closing():
            self._end_soon()
        self._settle()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP request that can be read, or its headers are too long")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_soon()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._end_soon()

    # --- bounds ---

    def abort(self) -> None:
        """Ends the connection at once, whatever has not been taken yet."""
        self.transport.abort()

    @property
    def _underway(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _settle(self) -> None:
        """After something has come or gone: which deadline holds."""
        if self.transport.is_closing():
            return
        if self._underway:
            self._open.busy(self)
            self._deadline = _cancelled(self._deadline)
            self._listen_on()
        elif self.conn.their_state is h11.SEND_BODY and self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.linger, self.abort)

    def _listen_on(self) -> None:
        """Uvicorn stops reading where the next request comes before this one is answered, and
        would not hear that the client goes."""
        if self.flow.read_paused and not self.cycle.more_body:
            if len(self.conn.trailing_data[0]) > self._limits.header_bytes:
                self.abort()
            else:
                self.flow.resume_reading()

    def _too_late(self) -> None:
        self._refuse(408, f"the headers did not come within {self._limits.header:g} s")

    def _refuse(self, status: int, message: str) -> None:
        """Answers in place of the app, and ends."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        content = json.dumps({"error": error}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(content))),
            ("connection", "close"),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # in the midst of an answer: no words
            response = h11.Response(status_code=status, headers=headers)
            self.transport.write(self.conn.send(response) or b"")
            self.transport.write(self.conn.send(h11.Data(data=content)) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()
        self._end_soon()

    def _end_soon(self) -> None:
        if self._last is None:
            self._last = self.loop.call_later(_FLUSH_SECONDS, self.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _bound_socket(sock: socket.socket | None, seconds: float) -> None:
    """Lets the system end a connection whose other side has vanished without a word, as machines
    that lose power do, as far as it knows how to. Tokens are sent as they come: without TCP_NODELAY
    the second piece of an answer waits for the client to confirm the first, some 40 ms. asyncio
    sets it where the listening socket was made for TCP by name, and there alone."""
    options = (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_SNDBUF", _SENT_BYTES),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _PROBE_AFTER_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPALIVE", _PROBE_AFTER_SECONDS),  # macOS's name of the former
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _PROBE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(seconds * 1000)),
    )
    for level, name, value in options:
        number = getattr(socket, name, None)
        if sock is not None and number is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, number, value)
