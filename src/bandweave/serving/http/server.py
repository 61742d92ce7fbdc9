"""Server: the app on a socket, in a thread of its own, from its start to its end.

Signals are the command's business: uvicorn leaves them alone in a thread that is not the main one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from typing import Any, Self, cast

import uvicorn
from starlette.applications import Starlette

from bandweave.serving.errors import unavailable
from bandweave.serving.http.handler import Exchanges
from bandweave.serving.http.limits import Limits
from bandweave.serving.http.protocol import protocols
from bandweave.serving.status.service import Service

_START_SECONDS = 30.0
_LAST_WORDS_SECONDS = 2  # for answers that were ended to say so
_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class Server(uvicorn.Server):
    """Serves from ``start`` to ``stop``. A context manager. Takes the socket over."""

    def __init__(self, app: Starlette, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what matters we say
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of clients that hang up
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                http=cast(Any, protocols(limits)),
                ws="none",
                timeout_keep_alive=int(limits.idle),
                timeout_graceful_shutdown=_LAST_WORDS_SECONDS,
                h11_max_incomplete_event_size=limits.header_bytes,
            )
        )
        self._service: Service = app.state.service
        self._exchanges: Exchanges = app.state.exchanges
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._stopping = False

    def start(self, sock: socket.socket) -> None:
        """Returns once requests are answered. Raises what keeps the server from that."""
        self._thread = threading.Thread(target=self._run, args=(sock,), name="http", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 10)
        self.check()
        if not self.started:
            raise TimeoutError(f"the server did not start within {_START_SECONDS:g} s")

    def check(self) -> None:
        """Raises what ended the server, where that was not ``stop``."""
        if self._error is not None:
            raise self._error

    def stop(self, drain: float = 0.0) -> None:
        """Takes nothing more, lets answers go on for ``drain`` seconds, and ends what is left with
        an error. Called again, as after a second Ctrl-C, it waits for nothing."""
        self._service.end()
        thread, loop, again = self._thread, self._loop, self._stopping
        if thread is None or loop is None:
            return
        self._stopping = True
        deadline = time.monotonic() + (0.0 if again else drain)
        while thread.is_alive() and self._exchanges.answering and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self.force_exit = again
        with contextlib.suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(self._end)
        thread.join(_LOOK_SECONDS)
        while thread.is_alive() and not again:
            thread.join(_LOOK_SECONDS * 10)  # and see whether a signal has come
        self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self) -> None:
        self._exchanges.end(unavailable("the server is stopping", _RETRY_SECONDS))
        self.should_exit = True

    def _run(self, sock: socket.socket) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self.serve(sockets=[sock])

        try:
            asyncio.run(serve())
        except BaseException as error:
            self._error = error
