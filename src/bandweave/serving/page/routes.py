"""The routes of the page: files that lie beside this one, and the rules that browsers keep to.

Nothing is made here: what the page shows comes from ``/v1/status``. It needs no key; what it asks
for does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
HEADERS = {
    # No script or style but the server's own files, nothing from and to other hosts, no frames.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, kw_only=True)
class _File:
    content: bytes
    kind: str
    tag: str


@cache
def _files() -> dict[str, _File]:
    """The page's files by their paths. There are few, and they are small."""
    found = {}
    for path in sorted(_FOLDER.rglob("*")):
        kind = _TYPES.get(path.suffix)
        if path.is_file() and kind is not None:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            name = path.relative_to(_FOLDER).as_posix()
            found[name] = _File(content=content, kind=kind, tag=tag)
    return found


def _send(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        return Response("there is no such file\n", 404, HEADERS, "text/plain; charset=utf-8")
    headers = {**HEADERS, "ETag": file.tag}
    known = request.headers.get("if-none-match", "").replace("W/", "").replace(" ", "").split(",")
    if file.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "Content-Type": file.kind})


async def page(request: Request) -> Response:
    return _send(request, "index.html")


async def file(request: Request) -> Response:
    return _send(request, request.path_params["path"])


def paths() -> list[str]:
    """All of the page's paths."""
    return ["/", *(f"/page/{name}" for name in _files())]


def routes() -> list[Route]:
    return [
        Route("/", page, methods=["GET"]),
        Route("/page/{path:path}", file, methods=["GET"]),
    ]
