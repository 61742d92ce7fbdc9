"""Shared memory between nodes of one host, agreed on over their sockets.

Knows sockets and files; what the memory carries is the exchange's business.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from bandweave.mesh.channel import Channel

_FOLDER = Path("/dev/shm")
_PREFIX = "bandweave-"


def share_memory(
    node: int, sockets: Mapping[int, socket.socket], size: int, timeout: float
) -> dict[int, int]:
    """Descriptors of ``size`` zeroed bytes shared with each peer on this host, by peer.

    ``sockets`` are fresh mesh sockets; every node of the mesh calls this at the same point. A peer
    without an entry is on another host, or one of the two has no memory to share. The file's name
    is gone when this returns. Errors of a socket are ``OSError``.
    """
    local = {peer: sock for peer, sock in sockets.items() if _same_host(sock)}
    channels = {peer: Channel(sock.dup(), f"node {peer}") for peer, sock in local.items()}
    made: dict[int, tuple[int, Path]] = {}
    shared: dict[int, int] = {}
    try:
        for peer, channel in channels.items():
            if peer > node:
                file = _make(size)
                if file is not None:
                    made[peer] = file
                channel.send({"type": "memory", "name": file[1].name if file else ""})
        for peer, channel in channels.items():
            if peer < node:
                message, _ = channel.receive(timeout)
                descriptor = _open(str(message.get("name", "")), size)
                if descriptor is not None:
                    shared[peer] = descriptor
                channel.send({"type": "memory", "shared": descriptor is not None})
        for peer, channel in channels.items():
            if peer > node:
                message, _ = channel.receive(timeout)
                if peer in made and message.get("shared") is True:
                    shared[peer] = os.dup(made[peer][0])
        return shared
    finally:
        for descriptor, path in made.values():
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
        for peer, channel in channels.items():
            channel.detach().close()  # the original stays open
            sockets[peer].setblocking(True)


def _same_host(sock: socket.socket) -> bool:
    """Both ends have one address: what one end finds, the other finds too."""
    return sock.getsockname()[0] == sock.getpeername()[0]


def _make(size: int) -> tuple[int, Path] | None:
    path = _FOLDER / f"{_PREFIX}{secrets.token_hex(16)}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        # Reserved now: memory that is missing later would be a SIGBUS.
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, AttributeError):
        os.close(descriptor)
        path.unlink()
        return None
    return descriptor, path


def _open(name: str, size: int) -> int | None:
    token = name.removeprefix(_PREFIX)
    if len(token) != 32 or not set(token) <= set("0123456789abcdef"):
        return None
    try:
        descriptor = os.open(_FOLDER / f"{_PREFIX}{token}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if status.st_size < size or status.st_uid != os.geteuid():
        os.close(descriptor)
        return None
    return descriptor
