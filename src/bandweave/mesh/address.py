"""Addresses: ``host:port`` text, name resolution in bounded time, and binding.

Knows IPv4, IPv6 and host names; knows nothing of what is said over a connection.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import threading
import time
from typing import Any

Address = tuple[str, int]
_BACKLOG = 128
_LOOPBACK = re.compile(r"lo\d*")  # interfaces that lead nowhere else


def parse_address(text: str, *, listening: bool = False) -> Address:
    """``("host", port)`` from ``host:port`` or ``[IPv6]:port``.

    Port 0 (any free port) is only for ``listening``. ``ValueError`` with one sentence otherwise.
    """
    host, colon, digits = text.strip().rpartition(":")
    if not colon and digits.isdigit():
        raise ValueError(f"{text!r} has no host; write host:port, as 127.0.0.1:{digits}")
    if not colon:
        raise ValueError(f"{text!r} has no port; write host:port, for example 10.0.0.2:9000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:9000")
    if not host or any(character.isspace() or character in "[]/@," for character in host):
        raise ValueError(f"{text!r} has no usable host; write host:port, for example studio:9000")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise ValueError(f"{text!r}: the port {digits!r} is not a number from 1 to 65535")
    if int(digits) == 0 and not listening:
        raise ValueError(f"{text!r}: port 0 means any free port, which nobody can connect to")
    return host, int(digits)


def format_address(address: Address) -> str:
    """The text that ``parse_address`` reads."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is, by its spelling alone, one that other machines cannot reach."""
    found = _numeric(host)
    if found is not None:
        return found.is_loopback or found.is_unspecified
    return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def is_unspecified(host: str) -> bool:
    """Whether a host stands for all addresses of a machine: one may listen there, not connect."""
    found = _numeric(host)
    return found is not None and found.is_unspecified


def is_link_local(host: str) -> bool:
    """Whether a host is an IPv6 address that holds on one cable only."""
    found = _numeric(host)
    return found is not None and found.version == 6 and found.is_link_local


def _numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def peer_address(sock: socket.socket) -> str:
    """The far side's address as text, or ``"an unknown peer"`` where it has gone already."""
    try:
        return format_address(sock.getpeername()[:2])
    except OSError:
        return "an unknown peer"


def resolve(
    address: Address, deadline: float, *, any_interface: bool = False
) -> list[tuple[int, Any]]:
    """Families and socket addresses of a host, in the system's order of preference.

    A link-local address holds on one cable only, and needs the name of the interface that leads
    there. That name is this machine's own, unless ``any_interface`` says that another machine gave
    it; then all interfaces are candidates, and whoever answers has to prove who it is.

    ``ValueError`` for a name that the resolver does not know, now or at all, and for an interface
    that is none; ``TimeoutError`` where the resolver has no answer by ``deadline`` (of
    ``time.monotonic``).
    """
    host, port = address
    if is_link_local(host):
        return _resolve_link_local(host, port, any_interface)
    with contextlib.suppress(socket.gaierror):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [(entry[0], entry[4]) for entry in found]
    answer: list[tuple[int, Any]] = []
    failure: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.extend((entry[0], entry[4]) for entry in found)
        except (OSError, UnicodeError) as error:
            failure.append(error)

    # The C resolver takes no deadline, so it gets a thread that may be left behind.
    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if failure:
        error = failure[0]
        if isinstance(error, (socket.gaierror, UnicodeError)):
            why = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"the host name {host!r} is not known ({why})") from error
        raise error
    if not answer:
        raise TimeoutError(f"the host name {host!r} could not be looked up in time")
    return answer


def _resolve_link_local(host: str, port: int, any_interface: bool) -> list[tuple[int, Any]]:
    text, _, scope = host.partition("%")
    interfaces = {
        name: index for index, name in socket.if_nameindex() if not _LOOPBACK.fullmatch(name)
    }
    named = interfaces.get(scope)
    if named is None and scope.isascii() and scope.isdigit() and int(scope) in interfaces.values():
        named = int(scope)
    chosen = [] if named is None else [named]
    if any_interface:
        chosen += [index for index in interfaces.values() if index != named]
    if not chosen:
        names = ", ".join(sorted(interfaces)) or "none"
        asked = f"this machine has no interface {scope!r}" if scope else "it names no interface"
        raise ValueError(
            f"{text} holds on one cable only, and {asked}: write [{text}%INTERFACE]:{port} with "
            f"one of {names}, or give an address that holds everywhere"
        )
    return [(socket.AF_INET6, (text, port, 0, index)) for index in chosen]


def bind(address: Address, *, option: str = "--listen") -> socket.socket:
    """A listening socket. ``ValueError`` with one sentence that names ``option``, the option of
    the command that chose the address."""
    host, port = address
    text = format_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{option} {text}: the host {host!r} is not known") from error
    family, kind, protocol, _, sockaddr = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":  # all interfaces means those of IPv4 too, whatever the system's default
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(sockaddr)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ValueError(_bind_sentence(error, address, option)) from error
    return sock


def _bind_sentence(error: OSError, address: Address, option: str) -> str:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use; stop the program that holds it or choose another "
            f"port with {option}"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {host}; give {option} one of its own, or 0.0.0.0"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights; choose one above 1023 with {option}"
    return f"{option} {format_address(address)} cannot be used: {error.strerror or error}"
