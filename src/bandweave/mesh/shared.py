"""Shared memory between nodes of one host, agreed on over their sockets.

The memory has no name in any file system: a node that dies leaves nothing behind. Its peer opens it
through the maker's entry in ``/proc``. Knows sockets and descriptors; what the memory carries is
the exchange's business.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Mapping

from bandweave.mesh.channel import Channel

_PREFIX = "bandweave-"
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)


def share_memory(
    node: int, sockets: Mapping[int, socket.socket], size: int, timeout: float
) -> dict[int, int]:
    """Descriptors of ``size`` zeroed bytes shared with each peer on this host, by peer.

    ``sockets`` are fresh mesh sockets; every node of the mesh calls this at the same point. A peer
    without an entry is on another host, or one of the two has no memory to share. Errors of a
    socket are ``OSError``.
    """
    local = {peer: sock for peer, sock in sockets.items() if _same_host(sock)}
    channels = {peer: Channel(sock.dup(), f"node {peer}") for peer, sock in local.items()}
    made: dict[int, int] = {}
    shared: dict[int, int] = {}
    try:
        for peer, channel in channels.items():
            if peer > node:
                token = secrets.token_hex(16)
                descriptor = _make(token, size)
                if descriptor is not None:
                    made[peer] = descriptor
                channel.send(
                    {
                        "type": "memory",
                        "process": os.getpid(),
                        "descriptor": -1 if descriptor is None else descriptor,
                        "token": token,
                    }
                )
        for peer, channel in channels.items():
            if peer < node:
                message, _ = channel.receive(timeout)
                descriptor = _open(message, size)
                if descriptor is not None:
                    shared[peer] = descriptor
                channel.send({"type": "memory", "shared": descriptor is not None})
        for peer, channel in channels.items():
            if peer > node:
                message, _ = channel.receive(timeout)
                if peer in made and message.get("shared") is True:
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


def _same_host(sock: socket.socket) -> bool:
    """Both ends have one address: what one end finds, the other finds too."""
    return sock.getsockname()[0] == sock.getpeername()[0]


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
