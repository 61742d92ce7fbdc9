"""Limits: how much of the server one client may take, and for how long. Plain data."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass, replace

_OTHER_FILES = 128  # that the engine and the model's files have open


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``connections`` at a time; the one that has been idle for longest gives way to a new one.

    Seconds: ``header`` for a request's line and headers; ``body`` for its content, and ``linger``
    for content that nobody wants any more; ``idle`` between two requests of a connection (longer
    than proxies keep one, so that none is cut in use); ``taking`` for which a client may take
    nothing of what is ready for it. Bytes: ``header_bytes`` of one request's headers,
    ``content_bytes`` of all contents that are being read.
    """

    connections: int = 1000
    header: float = 20.0
    body: float = 60.0
    linger: float = 5.0
    idle: float = 75.0
    taking: float = 60.0
    header_bytes: int = 64 << 10
    content_bytes: int = 256 << 20


def that_fit(limits: Limits) -> Limits:
    """With no more connections than this process may have files open, of which it is given as many
    as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        return replace(limits, connections=max(16, min(limits.connections, soft - _OTHER_FILES)))
    return limits
