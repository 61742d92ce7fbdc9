"""Failures: what became of a request, as an error that clients can be told of."""

from __future__ import annotations

import logging

from bandweave.cluster.unavailable import Unavailable
from bandweave.executors.executor import StepError
from bandweave.serving.errors import ApiError, bad, failed, unavailable

_LOG = logging.getLogger("bandweave.serving")
_RETRY_SECONDS = 5.0


def api_error(error: BaseException) -> ApiError:
    """What is unforeseen goes to the log; clients hear no more than that."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Unavailable):
        return unavailable(f"no machine can answer: {error}", error.retry)
    if isinstance(error, StepError):
        return unavailable(f"the engine has failed: {error}", _RETRY_SECONDS)
    if isinstance(error, ValueError):
        return bad(str(error))
    _LOG.error("a request failed", exc_info=error)
    return failed("the server met an error of its own; its log says more")
