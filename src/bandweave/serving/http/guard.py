"""Guard: what every request passes before it is looked at: whether its host, its page and its key
let it in. Adds to every answer what browsers are to know.

A plain ASGI middleware: Starlette's own kind hides it when a client goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bandweave.serving.errors import ApiError
from bandweave.serving.http.keys import Keys
from bandweave.serving.http.origins import Origins
from bandweave.serving.identifiers import new_id
from bandweave.shown import shown

_LOG = logging.getLogger("bandweave.serving.http")
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}  # unless the answer says otherwise
_METHODS = "GET, POST, DELETE, OPTIONS"
_SHOWN_HEADERS = "Retry-After, X-Request-Id"
_PREFLIGHT_SECONDS = "600"

ShapeAt = Callable[[str, ApiError], Response]  # an error, as the protocol of a path writes it


class Guard:
    """``free``: paths that need no key. ``shape``: how errors are written."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        origins: Origins,
        shape: ShapeAt,
        free: Collection[str] = (),
    ) -> None:
        self._app, self._keys, self._origins = app, keys, origins
        self._shape, self._free = shape, frozenset(free)
        self._told: set[str] = set()  # origins that the log has named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        crosses = origin is not None and not self._origins.is_own(origin, headers.get("host", ""))
        allowed = origin if crosses and origin and self._origins.allows(origin) else ""
        request_id = new_id("req")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    added.setdefault(name, value)
                added["X-Request-Id"] = request_id
                added.add_vary_header("Origin")
                if allowed:
                    added["Access-Control-Allow-Origin"] = allowed
                    added["Access-Control-Expose-Headers"] = _SHOWN_HEADERS
            await send(message)

        scope["bandweave.request"] = request_id
        answer: Response | None = None
        try:
            self._admit(scope, headers, crosses and not allowed)
        except ApiError as error:
            answer = self._shape(scope["path"], error)
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
        else:
            if allowed and _is_preflight(scope, headers):
                answer = _preflight(headers)
        await (answer or self._app)(scope, receive, with_headers)

    def _admit(self, scope: Scope, headers: Headers, foreign: bool) -> None:
        """``ApiError`` for whoever has no business here."""
        if self._keys:
            if scope["path"] not in self._free and not _is_preflight(scope, headers):
                self._find_key(scope, headers)
            return
        host = headers.get("host")
        if host is not None and not self._origins.knows_host(host):
            raise ApiError(
                403,
                f"the host {shown(host)} is not known to be this machine; start the server with "
                "--allow-host and its name to answer there",
                kind="permission_error",
            )
        if foreign and scope["method"] not in ("GET", "HEAD"):
            self._tell(headers["origin"])
            raise ApiError(
                403,
                f"pages of {shown(headers['origin'])} may not ask; start the server with "
                "--allow-origin to let them",
                kind="permission_error",
            )

    def _find_key(self, scope: Scope, headers: Headers) -> None:
        """Notes whose key it is."""
        kind, _, given = headers.get("authorization", "").strip().partition(" ")
        secrets = [given.strip()] if kind.lower() == "bearer" else []
        secrets += headers.getlist("x-api-key")
        key = self._keys.find([secret.encode("latin-1", "replace") for secret in secrets])
        if key is None:
            sent = any(secrets)
            raise ApiError(
                401,
                "this API key is not one of the server's" if sent
                else "this server needs an API key; send it as Authorization: Bearer KEY",
                kind="authentication_error",
                code="invalid_api_key",
            )  # fmt: skip
        scope["bandweave.key"], scope["bandweave.weight"] = key.name, key.weight

    def _tell(self, origin: str) -> None:
        """Once for each of the first few origins: whoever opened the page may look here."""
        if len(self._told) < 8 and origin not in self._told:
            self._told.add(origin)
            _LOG.warning("a page of %s was refused; --allow-origin lets it ask", shown(origin))


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def _preflight(headers: Headers) -> Response:
    """What a browser asks before it lets a page ask."""
    answer = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "*"),
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
    }
    if "access-control-request-private-network" in headers:
        answer["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=answer)
