"""Routes: the several addresses that lead to one machine, and which of them answers soonest.

The time of an address is that of the quickest of a few TCP connections: one way there and back, of
the systems alone, so that it tells of the way and not of the program at its end. Knows nothing of
what is said over a connection.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bandweave.mesh.address import Address, format_address, is_loopback, resolve
from bandweave.mesh.interfaces import own_hosts

_TRIES = 3
_SECONDS = 1.0  # for one connection; a way that takes longer is none for a mesh


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way to a machine: how long it takes there and back."""

    address: str
    seconds: float


def foreign(addresses: Sequence[Address], own: Sequence[str] | None = None) -> list[Address]:
    """The addresses that can lead to another machine: one that this machine has itself (as bridges
    of containers are alike everywhere) leads here. All of them where none is left, since that
    machine is this one."""
    here = own_hosts() if own is None else own
    away = [one for one in addresses if one[0] not in here and not is_loopback(one[0])]
    return away or [one for one in addresses if not is_loopback(one[0])] or list(addresses)


def measure_routes(
    addresses: Sequence[Address], *, tries: int = _TRIES, seconds: float = _SECONDS
) -> list[Route]:
    """Those that answer, the soonest first; equally soon in the order given. Takes a few times the
    way there and back, and ``seconds`` where some do not answer."""
    best: dict[int, float] = {}
    left = dict(enumerate(addresses))
    for _ in range(tries):
        took = _connect(left, seconds)
        for index, value in took.items():
            best[index] = min(value, best.get(index, value))
        left = {index: left[index] for index in took}  # who does not answer is asked no more
    return [
        Route(address=format_address(addresses[index]), seconds=best[index])
        for index in sorted(best, key=lambda index: (best[index], index))
    ]


def best_routes(
    addresses: Sequence[Address],
    measure: Callable[[Sequence[Address]], list[Route]] = measure_routes,
) -> list[Route]:
    """All routes in the order in which to try them; one address is not measured. Empty where none
    of several answers."""
    ways = foreign(addresses)
    if len(ways) == 1:
        return [Route(address=format_address(ways[0]), seconds=0.0)]
    return measure(ways)


def _connect(addresses: Mapping[int, Address], seconds: float) -> dict[int, float]:
    """How long a connection to each took to stand, all at a time; without those that did not."""
    deadline = time.monotonic() + seconds
    found: dict[int, float] = {}
    with contextlib.ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        for index, address in addresses.items():
            with contextlib.suppress(OSError, ValueError):
                family, sockaddr = resolve(address, deadline, any_interface=True)[0]
                sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.setblocking(False)
                began = time.perf_counter()
                code = sock.connect_ex(sockaddr)
                if code == 0:
                    found[index] = time.perf_counter() - began
                elif code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                    selector.register(sock, selectors.EVENT_WRITE, (index, began))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                index, began = key.data
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                selector.unregister(sock)
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found[index] = time.perf_counter() - began
    return found
