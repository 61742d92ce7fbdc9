"""Hellos, raw messages and waiting, for tests of connections."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from bandweave.handshake.hello import Hello
from bandweave.handshake.secret import make_secret

SECRET = make_secret()
LOCAL = ("127.0.0.1", 0)


def hello(**values: Any) -> Hello:
    return Hello(**{"purpose": "mesh", "node": 1, "session": "s", **values})


def framed(text: bytes) -> bytes:
    """A message as it travels."""
    return struct.pack("<4sII", b"bwv1", len(text), 0) + text


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def ends(sock: socket.socket, seconds: float = 5.0) -> bool:
    """Whether the far side ends the connection in time."""
    sock.settimeout(seconds)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def ended(sock: socket.socket) -> bool:
    """Whether the far side has ended the connection; what it said before is thrown away."""
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
