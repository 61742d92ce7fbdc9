"""Handlers: what stands between a route and its answer, alike for every protocol."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from bandweave.executors.executor import StepError
from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End, Event
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import ApiError, bad, failed, unavailable
from bandweave.serving.fields import Fields
from bandweave.serving.http.body import read_fields
from bandweave.serving.http.stream import ClientGone
from bandweave.serving.status.protocols import protocol_of
from bandweave.serving.status.registry import Live, Registry

_LOG = logging.getLogger("bandweave.serving")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Of one request: the model, who asks and how, and who keeps account of it."""

    served: Served
    key: str
    weight: float
    protocol: str
    registry: Registry

    async def fields(self, request: Request) -> Fields:
        return await read_fields(request)


Handle = Callable[[Context, Request], Awaitable[Response]]
ShapeError = Callable[[ApiError], Response]


def handler(handle: Handle, shape: ShapeError) -> Callable[[Request], Awaitable[Response]]:
    """A route's endpoint: errors get the protocol's shape."""

    async def endpoint(request: Request) -> Response:
        context = Context(
            served=request.app.state.served,
            key=request.scope.get("bandweave.key", ""),
            weight=request.scope.get("bandweave.weight", 1.0),
            protocol=protocol_of(request.url.path),
            registry=request.app.state.status.registry,
        )
        try:
            return await handle(context, request)
        except ApiError as error:
            return shape(error)
        except ClientGone:
            return Response(status_code=499)  # nobody reads it
        except StepError as error:
            return shape(unavailable(f"the engine has failed: {error}", 5.0))
        except ValueError as error:
            return shape(bad(str(error)))
        except Exception:
            _LOG.exception("a request failed")
            return shape(failed("the server met an error of its own; its log says more"))

    return endpoint


def answer_stream(context: Context, ask: Ask) -> Admitted:
    """Asks, if not too many wait. ``ApiError`` 429 where they do."""
    admission, registry = context.served.admission, context.registry
    place = object()
    try:
        admission.enter(place, len(ask.tokens))
    except ApiError:
        registry.refuse(context.protocol)
        raise
    try:
        stream = context.served.answering.start(ask)
    except BaseException:
        admission.leave(place)
        raise
    live = registry.begin(ask, protocol=context.protocol, key=context.key)
    return Admitted(stream, lambda: admission.leave(place), live)


class Admitted(AnswerStream):
    """An answer stream that waits no more once it has a token, or has ended, and of which account
    is kept."""

    def __init__(self, stream: AnswerStream, leave: Callable[[], None], live: Live) -> None:
        self.ask, self._stream, self._leave, self._live = stream.ask, stream, leave, live

    def cancel(self) -> None:
        self._stream.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        outcome = "cancelled"
        try:
            async for event in self._stream:
                self._live.hear(event)
                if not isinstance(event, End) and getattr(event, "choice", None) is not None:
                    self._leave()
                yield event
        except (StepError, ValueError):
            outcome = "error"
            raise
        finally:
            self._leave()
            self._live.close(outcome)

    async def __aexit__(self, *error: object) -> None:
        self._leave()
        self._live.close("cancelled")
        await self._stream.__aexit__(*error)
