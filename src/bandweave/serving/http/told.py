"""Told: faults in the midst of a stream, which clients hear as the protocol puts them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from bandweave.executors.executor import StepError
from bandweave.serving.errors import ApiError, bad, failed, unavailable

_LOG = logging.getLogger("bandweave.serving")
_RETRY_SECONDS = 5.0


async def told(
    pieces: AsyncIterator[bytes], shape: Callable[[ApiError], bytes]
) -> AsyncIterator[bytes]:
    """The pieces; where they fail, ``shape`` of why is the last."""
    try:
        async for piece in pieces:
            yield piece
    except Exception as error:
        yield shape(api_error(error))


def api_error(error: Exception) -> ApiError:
    """What a client is told of a fault. One that is nobody's is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StepError):
        return unavailable(f"the engine has failed: {error}", _RETRY_SECONDS)
    if isinstance(error, ValueError):
        return bad(str(error))
    _LOG.error("a request failed", exc_info=error)
    return failed("the server met an error of its own; its log says more")
