"""The routes of the status: JSON, a feed of it, and Prometheus's metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.http.stream import EventStream
from bandweave.serving.status.status import Status

_NO_STORE = {"Cache-Control": "no-store"}
_FIRST_SECONDS = 2.0  # for which a question may wait for the engine's first answer


async def _status(request: Request) -> Status:
    """Once the engine has answered for the first time, unless that takes long."""
    status: Status = request.app.state.status
    for _ in range(round(_FIRST_SECONDS / 0.02)):
        if status.state is not None or status.sampler.failure:
            break
        await asyncio.sleep(0.02)
    status.want()
    return status


async def look(request: Request) -> Response:
    return JSONResponse((await _status(request)).look(), headers=_NO_STORE)


async def stream(request: Request) -> Response:
    status = await _status(request)
    return EventStream(status.feed.listen(status.look()))


async def scrape(request: Request) -> Response:
    from bandweave.serving.status.metrics import CONTENT_TYPE, metrics

    return Response(
        metrics(await _status(request)), headers={**_NO_STORE, "Content-Type": CONTENT_TYPE}
    )


def routes() -> list[Route]:
    return [
        Route("/v1/status", look, methods=["GET"]),
        Route("/v1/status/stream", stream, methods=["GET"]),
        Route("/metrics", scrape, methods=["GET"]),
    ]
