"""Cable: two network namespaces of this machine, joined by a veth pair, as two hosts are.

Needs root and iproute2. Whatever was made is removed, whatever happens. How a slower link would
be is for ``--emulate-link`` to show: ``tc netem`` is missing from many kernels, and a process that
delays packets takes time from the processors that the nodes compute on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_ADDRESSES = ("10.213.9.1", "10.213.9.2")
_DEVICE = "cable"
_MTU = 9000


@dataclass(frozen=True, kw_only=True)
class Cable:
    """A link that is there: the namespaces at its ends and their addresses."""

    names: tuple[str, str]
    addresses: tuple[str, str] = _ADDRESSES

    def inside(self, end: int) -> tuple[str, ...]:
        """What stands before a command that shall run at one end."""
        return ("ip", "netns", "exec", self.names[end])


def why_not() -> str:
    """Why no cable can be laid here; empty where one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is missing"
    probe = f"bw{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True).returncode:
        return "this system allows no network namespaces"
    _ip("netns", "del", probe)
    return ""


@contextlib.contextmanager
def lay() -> Iterator[Cable]:
    """A cable, which is taken up again in the end."""
    with _pair() as names:
        ends = [("netns", name, "mtu", str(_MTU)) for name in names]
        _ip("link", "add", _DEVICE, *ends[0], "type", "veth", "peer", "name", _DEVICE, *ends[1])
        for name, own, other in zip(names, _ADDRESSES, reversed(_ADDRESSES), strict=True):
            _ip("-n", name, "addr", "add", f"{own}/32", "peer", other, "dev", _DEVICE)
            _ip("-n", name, "link", "set", _DEVICE, "up", "mtu", str(_MTU))
        yield Cable(names=names)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[str, str]]:
    tag = f"bw{secrets.token_hex(3)}"
    names = (f"{tag}a", f"{tag}b")
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error
