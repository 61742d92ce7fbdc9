"""ApiError: what is wrong with a request, before a protocol gives it its shape."""

from __future__ import annotations


class ApiError(Exception):
    """``status`` of HTTP; ``code`` and ``param`` as OpenAI has them, None where there is none;
    ``retry_after`` in seconds, where trying again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.retry_after = code, param, retry_after


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A fault of the request, which trying again does not mend."""
    return ApiError(400, message, param=param, code=code)


def unsupported(name: str, why: str = "") -> ApiError:
    """A field that asks for what this server cannot do."""
    reason = f": {why}" if why else ""
    return bad(f"{name} is not supported{reason}", name, "unsupported_parameter")


def unknown_model(name: str, known: str) -> ApiError:
    return ApiError(
        404,
        f"there is no model {name[:100]!r} here; this server has {known!r}",
        code="model_not_found",
        param="model",
    )


class PromptTooLong(ApiError):
    """A prompt that does not fit into the context. ``tokens``: how many it has."""

    def __init__(self, tokens: int, message: str, param: str) -> None:
        super().__init__(400, message, param=param, code="context_length_exceeded")
        self.tokens = tokens


def too_long(tokens: int, context: int, param: str = "messages") -> PromptTooLong:
    """The words are those by which clients know this error."""
    return PromptTooLong(
        tokens,
        f"The prompt is too long: {tokens} tokens > {context} maximum. This model's maximum "
        f"context length is {context} tokens, and the prompt exceeds the available context size; "
        "shorten it, or start the server with a larger --context",
        param,
    )


def failed(message: str) -> ApiError:
    """The server's own trouble."""
    return ApiError(500, message, kind="server_error")


def unavailable(message: str, retry_after: float) -> ApiError:
    return ApiError(503, message, kind="server_error", code="unavailable", retry_after=retry_after)
