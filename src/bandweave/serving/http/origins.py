"""Origins: which web pages may ask, by the headers that browsers add. Knows no keys.

Without keys, whoever reaches the server may ask. A page of anybody's reaches it through the browser
of somebody on this machine: directly, or by a name of its own that it lets point here. The first
kind names its origin, the second a host that is not this machine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*|null|\*", re.ASCII)
_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", re.ASCII)


class Origins:
    """``hosts``: names besides those that mean this machine; ``allowed``: origins whose pages may
    ask, ``*`` for any."""

    def __init__(self, hosts: Collection[str] = (), allowed: Collection[str] = ()) -> None:
        """``ValueError`` with one sentence for what is no host or no origin."""
        self._hosts = frozenset(map(_checked_host, hosts))
        self._allowed = frozenset(map(_checked_origin, allowed))

    def knows_host(self, host: str) -> bool:
        """Whether a ``Host`` header means this machine."""
        name = _without_port(host.strip().lower())
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    def allows(self, origin: str) -> bool:
        """Whether answers may be shown to pages of this origin."""
        return "*" in self._allowed or origin.strip().lower() in self._allowed

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page came from where it asks now."""
        return bool(host) and origin.strip().lower().partition("://")[2] == host.strip().lower()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def _checked_host(host: str) -> str:
    name = host.strip().lower()
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"--allow-host {host}: write the name alone, without http:// and without a port, for "
            "example studio.local"
        )
    return name


def _checked_origin(origin: str) -> str:
    text = origin.strip().lower().rstrip("/")
    if not _ORIGIN.fullmatch(text):
        raise ValueError(
            f"--allow-origin {origin}: write it as browsers do, for example "
            "https://chat.example.org, or * for any"
        )
    return text
