"""The addresses of this machine, of all its interfaces. Knows Linux and macOS; elsewhere those to
which the machine's own name leads."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import sys
from collections.abc import Iterator

_UP = 0x1
_IPV4_OFFSET, _IPV6_OFFSET = 4, 8  # of the address, in both systems' socket addresses


class _Entry(ctypes.Structure):
    """``struct ifaddrs``, as far as it is read."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def own_hosts() -> tuple[str, ...]:
    """The addresses by which other machines may reach this one: those of one cable only and those
    that lead nowhere else are left out. IPv4 first, in the system's order."""
    found = list(dict.fromkeys(_usable(_system_hosts())))
    return tuple(sorted(found, key=lambda host: ":" in host))


def _usable(hosts: Iterator[str]) -> Iterator[str]:
    for host in hosts:
        address = ipaddress.ip_address(host)
        if not (address.is_loopback or address.is_link_local or address.is_unspecified):
            yield host


def _system_hosts() -> Iterator[str]:
    """All addresses; those of the machine's name where the system does not list any."""
    listed = list(_listed()) if sys.platform in ("linux", "darwin") else []
    if listed:
        yield from listed
        return
    with contextlib.suppress(OSError):
        for entry in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            yield str(entry[4][0]).partition("%")[0]


def _listed() -> Iterator[str]:
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)):
        return
    try:
        entry = first
        while entry:
            if entry.contents.flags & _UP and entry.contents.address:
                host = _host(entry.contents.address)
                if host:
                    yield host
            entry = entry.contents.next
    finally:
        library.freeifaddrs(first)


def _host(pointer: int) -> str:
    """The text of a socket address; empty for one of another family."""
    if sys.platform == "darwin":  # a length before the family, one byte each
        family = ctypes.string_at(pointer, 2)[1]
    else:
        family = int.from_bytes(ctypes.string_at(pointer, 2), sys.byteorder)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, ctypes.string_at(pointer + _IPV4_OFFSET, 4))
    if family == socket.AF_INET6:
        return socket.inet_ntop(family, ctypes.string_at(pointer + _IPV6_OFFSET, 16))
    return ""
