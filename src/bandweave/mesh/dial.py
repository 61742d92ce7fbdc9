"""Dialling: one connection to whichever of a host's addresses answers first.

The addresses are tried in order, each a moment after the one before, and the first that answers is
taken (RFC 8305), so that one that is silent holds up none of the others. Knows nothing of what is
said over a connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Any

_DIAL_SECONDS = 2.0  # for all addresses of a host, before whoever asked tries again
_HEAD_START = 0.25  # of an address over the next one
_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK)


def dial(candidates: Sequence[tuple[int, Any]], deadline: float) -> socket.socket:
    """A connected socket to one of ``candidates``, each a family and a socket address.

    Takes at most two seconds, and not beyond ``deadline`` (of ``time.monotonic``). ``OSError`` of
    the first candidate where none answers.
    """
    if not candidates:
        raise OSError("the host has no address")
    end = min(deadline, time.monotonic() + _DIAL_SECONDS)
    with contextlib.ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        waiting = list(enumerate(candidates))
        failures: dict[int, OSError] = {}
        while waiting or selector.get_map():
            if waiting:
                index, candidate = waiting.pop(0)
                try:
                    sock = _begin(*candidate)
                    opened.callback(sock.close)
                    selector.register(sock, selectors.EVENT_WRITE, index)
                except OSError as error:
                    failures[index] = error
                    continue
            wait = end - time.monotonic()
            if waiting:
                wait = min(wait, _HEAD_START)
            for key, _ in selector.select(max(0.01, wait)):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                selector.unregister(sock)
                failure = _outcome(sock)
                if failure is None:
                    return sock.dup()  # the original is closed with the others
                failures[key.data] = failure
            if time.monotonic() >= end:
                break
        raise failures[0] if 0 in failures else OSError("it does not answer")


def _begin(family: int, sockaddr: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    code = sock.connect_ex(sockaddr)
    if code and code not in _PENDING:
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock


def _outcome(sock: socket.socket) -> OSError | None:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return OSError(code, os.strerror(code))
    try:
        if sock.getsockname() == sock.getpeername():
            # A free port of this machine, dialled until the system connected it to itself.
            return ConnectionRefusedError("nothing listens there")
    except OSError as error:
        return error
    return None
