"""TCP options: how soon a connection sends, tries again, and is given up; and how long the other
machine has been silent.

An idle connection stands through a cable that is out for two and a half minutes. Whoever waits for
something asks ``silence`` and gives up sooner. Knows Linux and macOS; knows no messages.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

# Keepalive: a sign of life every 5 s, and the end after 30 that nobody answered.
_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 5, 5, 30
LONGEST_SILENCE = float(_IDLE_SECONDS + _INTERVAL_SECONDS * _PROBES)  # of a connection that stands

# Sent data is sent again at least so often, whatever was lost before, so that an outage costs no
# more than its own time and this. Steps wait for the mesh; the control connections only talk.
_MESH_RETRY_MS, _CONTROL_RETRY_MS = 1000, 15_000

# Names that Python lacks.
_LINUX_RTO_MAX_MS = 44  # since Linux 6.15
_DARWIN_RXT_CONNDROPTIME = 0x80  # seconds of retransmission before the end

_TCP_INFO = struct.Struct("=52xII")  # tcpi_last_data_recv, tcpi_last_ack_recv: milliseconds


def configure(sock: socket.socket, purpose: str) -> None:
    """Sets the options of a ``"control"`` or a ``"mesh"`` connection. What a system does not know
    is left out."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [(socket.TCP_NODELAY, 1), *_keepalive()]
    if sys.platform == "linux":
        retry = _MESH_RETRY_MS if purpose == "mesh" else _CONTROL_RETRY_MS
        options.append((_LINUX_RTO_MAX_MS, retry))
        if purpose == "mesh":
            # Not on control connections: it would end one whose reader is paused.
            options.append((socket.TCP_USER_TIMEOUT, int(LONGEST_SILENCE * 1000)))
    elif sys.platform == "darwin":
        options.append((_DARWIN_RXT_CONNDROPTIME, int(LONGEST_SILENCE)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _keepalive() -> list[tuple[int, int]]:
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    values = ((idle, _IDLE_SECONDS), ("TCP_KEEPINTVL", _INTERVAL_SECONDS), ("TCP_KEEPCNT", _PROBES))
    return [(getattr(socket, name), value) for name, value in values if hasattr(socket, name)]


def silence(sock: socket.socket) -> float:
    """Seconds since the other machine last sent or acknowledged anything, which it does every five
    seconds, even where the process there is stopped. 0.0 where the system does not say."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        data_ms, acknowledged_ms = _TCP_INFO.unpack(info)
    except (OSError, struct.error):
        return 0.0
    return min(data_ms, acknowledged_ms) / 1000
