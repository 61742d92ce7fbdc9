"""The routes of the status: JSON, a feed of it, and Prometheus's metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bandweave.serving.http.handler import Exchanges
from bandweave.serving.http.stream import EventStream
from bandweave.serving.status.status import Status

_NO_STORE = {"Cache-Control": "no-store"}
_FIRST_SECONDS = 2.0  # for which a question may wait for the engine's first answer


async def _status(scope: Scope) -> Status:
    """Once the engine has answered for the first time, unless that takes long."""
    status: Status = scope["app"].state.status
    status.want()
    for _ in range(round(_FIRST_SECONDS / 0.02)):
        if not status.is_new:
            break
        await asyncio.sleep(0.02)
    return status


async def look(request: Request) -> Response:
    return JSONResponse((await _status(request.scope)).look(), headers=_NO_STORE)


async def scrape(request: Request) -> Response:
    from bandweave.serving.status.metrics import CONTENT_TYPE, metrics

    status = await _status(request.scope)
    return Response(metrics(status), headers={**_NO_STORE, "Content-Type": CONTENT_TYPE})


class Stream:
    """The feed, as an ASGI app: it ends with the server, and no answer waits for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = await _status(scope)
        exchanges: Exchanges = scope["app"].state.exchanges
        with exchanges.one() as exchange:
            source = status.feed.listen(status.look())
            exchange.response = EventStream(source, on_error=lambda error: b"")
            await exchange.response(scope, receive, send)


def routes() -> list[Route]:
    return [
        Route("/v1/status", look, methods=["GET"]),
        Route("/v1/status/stream", Stream(), methods=["GET"]),
        Route("/metrics", scrape, methods=["GET"]),
    ]
