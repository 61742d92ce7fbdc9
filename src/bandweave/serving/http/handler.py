"""Handlers: what stands between a route and its answer, alike for every protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import ApiError, unavailable
from bandweave.serving.fields import Fields
from bandweave.serving.http.body import read_fields
from bandweave.serving.http.failures import api_error
from bandweave.serving.http.stream import ClientGone, EventStream
from bandweave.serving.status.protocols import protocol_of
from bandweave.serving.status.status import Status


@dataclass(eq=False, kw_only=True)
class Context:
    """Of one request: the model, who asks and how, and who keeps account of it. ``served`` has the
    name that the client gives the model once the request's fields are read."""

    served: Served
    key: str
    weight: float
    protocol: str
    status: Status
    headers: Headers
    streams: list[AnswerStream] = field(default_factory=list)  # what has been asked for it

    async def fields(self, request: Request) -> Fields:
        fields = await read_fields(request, context=self.served.context)
        self.served = self.served.asked_as(fields.any("model"))
        return fields


Handle = Callable[[Context, Request], Awaitable[Response]]
ShapeError = Callable[[ApiError], Response]


def answer_stream(context: Context, ask: Ask) -> AnswerStream:
    """Asks, if not too many wait. ``ApiError`` 429 where they do. Whatever has not ended with the
    response to the request is cancelled then."""
    return answer_streams(context, [ask])[0]


def answer_streams(context: Context, asks: Sequence[Ask]) -> list[AnswerStream]:
    """The same for several that belong together, and wait as one."""
    admission, registry = context.served.admission, context.status.registry
    place, begun = object(), 0
    try:
        admission.enter(place, sum(len(ask.tokens) for ask in asks))
    except ApiError:
        registry.refuse(context.protocol)
        raise

    def begin(heard: bool) -> None:
        nonlocal begun
        begun += 1
        if begun == len(asks):
            admission.leave(place, heard)

    try:
        for ask in asks:
            account = context.status.begin(
                ask,
                protocol=context.protocol,
                key=context.key,
                model=context.served.name,
                headers=context.headers,
            )
            try:
                context.streams.append(context.served.answering.start(ask, begin, account))
            except BaseException:
                account.close("error")
                raise
    except BaseException:
        admission.leave(place, served=False)
        raise
    context.status.wake()
    return context.streams[-len(asks) :]


def handler(handle: Handle, shape: ShapeError) -> Endpoint:
    """A route's endpoint: errors get the protocol's shape."""
    return Endpoint(handle, shape)


class Endpoint:
    """An ASGI app for one route."""

    def __init__(self, handle: Handle, shape: ShapeError) -> None:
        self._handle, self._shape = handle, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        exchanges: Exchanges = request.app.state.exchanges
        with exchanges.one() as exchange:
            try:
                response = await self._response(request, exchange)
                if response is not None:
                    exchange.sending = True
                    await response(scope, receive, send)
            finally:
                exchange.close()

    async def _response(self, request: Request, exchange: Exchange) -> Response | None:
        """None where nobody waits for it."""
        try:
            context = Context(
                served=request.app.state.service.take(),
                key=request.scope.get("bandweave.key", ""),
                weight=request.scope.get("bandweave.weight", 1.0),
                protocol=protocol_of(request.url.path),
                status=request.app.state.status,
                headers=request.headers,
                streams=exchange.streams,
            )
            response = await self._handle(context, request)
            if isinstance(response, EventStream):
                exchange.response = response
                try:
                    await response.begin(request.receive)
                except BaseException:
                    await response.close()
                    raise
            return response
        except ClientGone:
            return None
        except asyncio.CancelledError:
            if not exchange.ended:
                raise
            return self._shape(unavailable("the server is stopping", 5.0))
        except Exception as error:
            return self._shape(api_error(error))


class Exchange:
    """One request and its response. ``streams``: what the engine was asked for it."""

    def __init__(self) -> None:
        self.streams: list[AnswerStream] = []
        self.response: EventStream | None = None
        self.ended = self.sending = False
        self._task = asyncio.current_task()

    def end(self, error: ApiError) -> None:
        """Brings it to its end soon: its answers fail with the error."""
        self.ended = True
        for stream in self.streams:
            stream.fail(error)
        if self.streams:
            return
        if self.response is not None:
            self.response.end()
        elif self._task is not None and not self.sending:
            self._task.cancel()

    def close(self) -> None:
        """Cancels what has not ended."""
        for stream in self.streams:
            stream.close()


class Exchanges:
    """All that are under way on a server. For its event loop."""

    def __init__(self) -> None:
        self._open: set[Exchange] = set()

    @contextlib.contextmanager
    def one(self) -> Iterator[Exchange]:
        exchange = Exchange()
        self._open.add(exchange)
        try:
            yield exchange
        finally:
            self._open.discard(exchange)

    @property
    def answering(self) -> bool:
        """Whether answers are under way, or what may become some."""
        return any(one.streams or one.response is None for one in self._open)

    def end(self, error: ApiError) -> None:
        for one in list(self._open):
            one.end(error)
