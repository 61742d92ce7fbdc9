"""Which connections are encrypted: what a command asks for, and what stays on one machine.

Pure decisions over sockets and what the other side says of itself. Knows no keys.
"""

from __future__ import annotations

import ipaddress
import socket

from bandweave.mesh.host import network_id

AUTO, ALWAYS, NEVER = "auto", "always", "never"
ENCRYPTION = (AUTO, ALWAYS, NEVER)
NEEDED = (
    "its worker takes encrypted connections only (--require-encryption); leave --no-encrypt out, "
    "or start that worker without it"
)


def check_encryption(encryption: str) -> str:
    """The word itself; ``ValueError`` where it is none of ``ENCRYPTION``."""
    if encryption not in ENCRYPTION:
        raise ValueError(f"encryption is one of {', '.join(ENCRYPTION)}, and not {encryption!r}")
    return encryption


def over_loopback(sock: socket.socket) -> bool:
    """Whether a connected socket leads to an address that other machines cannot have."""
    try:
        host = sock.getpeername()[0]
        found = ipaddress.ip_address(host.partition("%")[0])
    except (OSError, ValueError, IndexError, AttributeError):
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def stays_here(sock: socket.socket, host: str) -> bool:
    """Whether nothing of a connection leaves this machine: it is one of loopback, and the other
    side, which proved the secret, sees the same network (``mesh.host``). A tunnel or a forwarded
    port ends at loopback too, but whoever is behind it sees another."""
    return over_loopback(sock) and host != "" and host == network_id()
