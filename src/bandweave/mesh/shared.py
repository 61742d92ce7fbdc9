"""Shared memory between nodes of one host, agreed on over their sockets.

Linux: the memory has no name in any file system, so that a node that dies leaves nothing behind.
Its peer opens it through the maker's entry in ``/proc``, which nobody can who is on another host.
macOS: the memory has a random name until the peer has answered; only a node that dies in that
moment leaves it behind, until the system starts anew. Elsewhere nodes keep to their sockets. Knows
sockets and descriptors; what the memory carries is the exchange's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import re
import secrets
import socket
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.host import network_id
from bandweave.mesh.sealing import Keys

_PREFIX = "bandweave-"
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NAME_DIGITS = 26  # of the token: macOS takes names of 31 characters


class Maker(Protocol):
    """How a system gives memory to two processes."""

    def make(self, token: str, size: int) -> int | None:
        """A descriptor of new memory; None where it cannot be had."""
        ...

    def open(self, message: Mapping[str, object], size: int) -> int | None:
        """The memory that a peer speaks of; None where it cannot be had. Only memory with the
        peer's own random name is opened."""
        ...

    def settle(self, token: str) -> None:
        """Both ends have it, or never will."""
        ...


def share_memory(
    node: int,
    sockets: Mapping[int, socket.socket],
    size: int,
    timeout: float | None,
    *,
    willing: bool = True,
    keys: Mapping[int, Keys | None] | None = None,
) -> dict[int, int]:
    """Descriptors of ``size`` zeroed bytes shared with each peer on this host, by peer.

    ``sockets`` are fresh mesh sockets; every node of the mesh calls this at the same point, and
    every two of them go through the same steps, whatever their addresses and wherever they are: the
    higher says which network it sees, the lower offers memory where it sees that one too, and the
    higher says whether it could open it. A peer without an entry is on another host or in another
    network, one of the two has no memory to share, or is not ``willing``. ``keys`` of the sockets
    that are sealed, for this alone. Each step takes at most
    ``timeout`` seconds, None for as long as the connections stand. Errors of a socket are
    ``OSError``.
    """
    sealed = keys or {}
    channels = {
        peer: Channel(sock.dup(), f"node {peer}", keys=sealed.get(peer))
        for peer, sock in sockets.items()
    }
    higher = {peer: channel for peer, channel in channels.items() if peer > node}
    lower = {peer: channel for peer, channel in channels.items() if peer < node}
    network = network_id() if willing else ""
    made: dict[int, int] = {}
    tokens: list[str] = []
    shared: dict[int, int] = {}
    try:
        for channel in lower.values():
            channel.send({"type": "network", "network": network})
        for peer, channel in higher.items():
            theirs = _expect(channel, "network", timeout).get("network")
            offer, descriptor = _offer(size if network and theirs == network else 0)
            if descriptor is not None:
                made[peer] = descriptor
                tokens.append(str(offer["token"]))
            channel.send(offer)
        for peer, channel in lower.items():
            message = _expect(channel, "memory", timeout)
            descriptor = _MAKER.open(message, size) if network else None
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
        for token in tokens:
            _MAKER.settle(token)
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
    descriptor = _MAKER.make(token, size) if size else None
    number = -1 if descriptor is None else descriptor
    offer = {"type": "memory", "process": os.getpid(), "descriptor": number, "token": token}
    return offer, descriptor


class ProcMemory:
    """Linux's: a memfd, whose maker's ``/proc`` entry is its way to the peer."""

    def make(self, token: str, size: int) -> int | None:
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

    def open(self, message: Mapping[str, object], size: int) -> int | None:
        """None too in a container beside the peer's. The numbers may point to anything."""
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
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            named = _is_ours(f"/proc/self/fd/{descriptor}", token)
            if _fits(descriptor, size) and sealed and named:
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        return None

    def settle(self, token: str) -> None:
        pass  # no name was given


class NoMemory:
    """Of systems that have no way: nodes keep to their sockets."""

    def make(self, token: str, size: int) -> int | None:
        return None

    def open(self, message: Mapping[str, object], size: int) -> int | None:
        return None

    def settle(self, token: str) -> None:
        pass


class NamedMemory:
    """macOS's: POSIX shared memory, under a random name for as long as the peer takes to open it.

    Needs no seal there: macOS lets the size be set once.
    """

    def __init__(self) -> None:
        # What multiprocessing.shared_memory stands on; ctypes cannot call a C function whose number
        # of arguments varies, as shm_open's does, on Apple silicon.
        self._calls: Any = importlib.import_module("_posixshmem")

    def make(self, token: str, size: int) -> int | None:
        try:
            descriptor = self._open(token, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError:
            return None
        try:
            os.ftruncate(descriptor, size)
        except OSError:
            os.close(descriptor)
            self.settle(token)
            return None
        return descriptor

    def open(self, message: Mapping[str, object], size: int) -> int | None:
        token, number = message.get("token"), message.get("descriptor")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        if not isinstance(number, int) or number < 0:
            return None  # the peer has none
        try:
            descriptor = self._open(token, os.O_RDWR)
        except OSError:
            return None
        if _fits(descriptor, size):
            return descriptor
        os.close(descriptor)
        return None

    def settle(self, token: str) -> None:
        with contextlib.suppress(OSError):
            self._calls.shm_unlink(self._name(token))

    def _open(self, token: str, flags: int) -> int:
        return self._calls.shm_open(self._name(token), flags, mode=0o600)

    def _name(self, token: str) -> str:
        return "/bw-" + token[:_NAME_DIGITS]


def _choose_maker() -> Maker:
    if hasattr(os, "memfd_create"):
        return ProcMemory()
    if sys.platform == "darwin":
        with contextlib.suppress(ImportError):
            return NamedMemory()
    return NoMemory()


def _fits(descriptor: int, size: int) -> bool:
    status = os.fstat(descriptor)
    return status.st_size >= size and status.st_uid == os.geteuid()


def _is_ours(path: str, token: str) -> bool:
    return os.readlink(path).startswith(f"/memfd:{_PREFIX}{token}")


_MAKER = _choose_maker()
