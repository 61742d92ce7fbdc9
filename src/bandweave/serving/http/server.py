"""Server: the app on a socket, from its start to its end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep a connection, so that none is cut in use
_DRAIN_SECONDS = 4


class Server(uvicorn.Server):
    """Serves until a signal ends it. ``leaving``: called when the end begins, for streams that
    would never end."""

    def __init__(self, app: ASGIApp, leaving: Callable[[], None] = lambda: None) -> None:
        self._leaving = leaving
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                http="h11",
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
                h11_max_incomplete_event_size=64 << 10,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leaving()
        await super().shutdown(sockets)

    def serve_on(self, sock: socket.socket) -> None:
        self.run(sockets=[sock])
