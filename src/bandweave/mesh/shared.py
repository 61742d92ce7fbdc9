"""Shared memory between nodes of one host, agreed on over their sockets.

The memory has no name in any file system: a node that dies leaves nothing behind. Its peer opens it
through the maker's entry in ``/proc``, which nobody can who is on another host. Knows sockets and
descriptors; what the memory carries is the exchange's business.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Mapping
from typing import Any

from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.host import network_id

_PREFIX = "bandweave-"
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)


def share_memory(
    node: int,
    sockets: Mapping[int, socket.socket],
    size: int,
    timeout: float | None,
    *,
    willing: bool = True,
) -> dict[int, int]:
    """Descriptors of ``size`` zeroed bytes shared with each peer on this host, by peer.

    ``sockets`` are fresh mesh sockets; every node of the mesh calls this at the same point, and
    every two of them go through the same steps, whatever their addresses and wherever they are: the
    higher says which network it sees, the lower offers memory where it sees that one too, and the
    higher says whether it could open it. A peer without an entry is on another host or in another
    network, one of the two has no memory to share, or is not ``willing``. Each step takes at most
    ``timeout`` seconds, None for as long as the connections stand. Errors of a socket are
    ``OSError``.
    """
    channels = {peer: Channel(sock.dup(), f"node {peer}") for peer, sock in sockets.items()}
    higher = {peer: channel for peer, channel in channels.items() if peer > node}
    lower = {peer: channel for peer, channel in channels.items() if peer < node}
    network = network_id() if willing else ""
    made: dict[int, int] = {}
    shared: dict[int, int] = {}
    try:
        for channel in lower.values():
            channel.send({"type": "network", "network": network})
        for peer, channel in higher.items():
            theirs = _expect(channel, "network", timeout).get("network")
            offer, descriptor = _offer(size if network and theirs == network else 0)
            if descriptor is not None:
                made[peer] = descriptor
            channel.send(offer)
        for peer, channel in lower.items():
            message = _expect(channel, "memory", timeout)
            descriptor = _open(message, size) if network else None
            if descriptor is not None:
                shared[peer] = descriptor
            channel.send({"type": "opened", "shared": descriptor is not None})
        for peer, channel in higher.items():
            if _expect(channel, "opened", timeout).get("shared") is True and peer in made:
                shared[peer] = os.dup(made[peer])
        return shared
    except BaseException:
        for descriptor in shared.values():
            os.close(descriptor)
        raise
    finally:
        for descriptor in made.values():
            os.close(descriptor)
        for peer, channel in channels.items():
            channel.detach().close()  # the original stays open
            sockets[peer].setblocking(True)


def _expect(channel: Channel, kind: str, timeout: float | None) -> dict[str, Any]:
    message = channel.receive(timeout)
    if message.get("type") != kind:
        raise ChannelError(f"{channel.peer} does not keep to the protocol")
    return message


def _offer(size: int) -> tuple[dict[str, Any], int | None]:
    """What is said of new memory of that size, and its descriptor; of none where it is 0 or cannot
    be had."""
    token = secrets.token_hex(16)
    descriptor = _make(token, size) if size else None
    number = -1 if descriptor is None else descriptor
    offer = {"type": "memory", "process": os.getpid(), "descriptor": number, "token": token}
    return offer, descriptor


def _make(token: str, size: int) -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create(_PREFIX + token, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        # Memory that is missing later, or that a peer takes away, would be a SIGBUS.
        os.posix_fallocate(descriptor, 0, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _open(message: Mapping[str, object], size: int) -> int | None:
    """The memory that a peer speaks of; None where it cannot be had, as in a container beside it.

    Only memory with the peer's own random name is opened, whatever the numbers point to.
    """
    process, number, token = (message.get(key) for key in ("process", "descriptor", "token"))
    if not isinstance(process, int) or not isinstance(number, int) or number < 0:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return None
    path = f"/proc/{process}/fd/{number}"
    try:
        if not _is_ours(path, token):
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        fits = status.st_size >= size and status.st_uid == os.geteuid() and sealed
        if fits and _is_ours(f"/proc/self/fd/{descriptor}", token):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _is_ours(path: str, token: str) -> bool:
    return os.readlink(path).startswith(f"/memfd:{_PREFIX}{token}")
