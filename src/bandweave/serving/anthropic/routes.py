"""The routes of Anthropic's API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from bandweave.serving.answers.conversation import count
from bandweave.serving.answers.served import Served
from bandweave.serving.anthropic.answer import PING, MessageAnswer
from bandweave.serving.anthropic.errors import error_event, error_response, new_request_id
from bandweave.serving.anthropic.request import read_conversation, read_request
from bandweave.serving.http.handler import Context, answer_stream, handler
from bandweave.serving.http.stream import EventStream, while_there


async def messages(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asked = await read_request(fields, context.served, context.key, context.weight)
    answer = MessageAnswer(asked, context.served)
    stream = answer_stream(context, asked.ask)
    request_id = new_request_id()
    headers = {"request-id": request_id}
    if asked.streams:
        return EventStream(
            answer.pieces(stream),
            on_error=lambda error: error_event(error, request_id),
            comment=PING,
            headers=headers,
        )
    whole = await while_there(request.receive, answer.whole(stream))
    return JSONResponse(whole, headers=headers)


async def count_tokens(context: Context, request: Request) -> Response:
    conversation = read_conversation(await context.fields(request), context.served)
    counted = {"input_tokens": await count(context.served, conversation)}
    return JSONResponse(counted, headers={"request-id": new_request_id()})


async def models(context: Context, request: Request) -> Response:
    name = context.served.name
    listed = {
        "data": [_model(context.served)],
        "has_more": False,
        "first_id": name,
        "last_id": name,
    }
    return JSONResponse(listed, headers={"request-id": new_request_id()})


async def model(context: Context, request: Request) -> Response:
    name = request.path_params["name"]
    context.served.check_name(name)
    described = _model(context.served.asked_as(name))
    return JSONResponse(described, headers={"request-id": new_request_id()})


def _model(served: Served) -> dict[str, Any]:
    created = datetime.fromtimestamp(served.created, UTC)
    return {
        "type": "model",
        "id": served.name,
        "display_name": served.name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": served.context,
        "max_tokens": served.context,
    }


class _AnthropicsOwn(Route):
    """A route for those alone who say that they speak Anthropic's protocol: OpenAI has the path,
    too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not any(name == b"anthropic-version" for name, _ in scope.get("headers", ())):
            return Match.NONE, {}
        return super().matches(scope)


def routes() -> list[Route]:
    """To stand before OpenAI's."""
    return [
        Route("/v1/messages", handler(messages, error_response), methods=["POST"]),
        Route("/v1/messages/count_tokens", handler(count_tokens, error_response), methods=["POST"]),
        _AnthropicsOwn("/v1/models", handler(models, error_response), methods=["GET"]),
        _AnthropicsOwn("/v1/models/{name:path}", handler(model, error_response), methods=["GET"]),
    ]
