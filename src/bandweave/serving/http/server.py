"""Server: the app on a socket, from its start to its end."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep a connection, so that none is cut in use
_DRAIN_SECONDS = 4


class Server(uvicorn.Server):
    """Serves until a signal ends it."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
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

    def serve_on(self, sock: socket.socket) -> None:
        self.run(sockets=[sock])
