"""Host: whether two processes run under one operating system, and see one network.

A host's id is the same for all processes of one boot of one system, in containers too, and for no
others. Knows Linux and macOS; elsewhere there is no id, and nobody shares a host.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import sys
from pathlib import Path

ID_LENGTH = 32
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = "/proc/self/ns/net"
_DARWIN_BOOT = b"kern.bootsessionuuid"


def host_id() -> str:
    """32 hexadecimal digits, or empty where the system tells nobody who it is."""
    boot = _darwin_boot() if sys.platform == "darwin" else _linux_boot()
    if not boot:
        return ""
    # A digest, since what the system calls itself is nobody else's business.
    return hashlib.sha256(b"bandweave host " + boot).hexdigest()[:ID_LENGTH]


def network_id() -> str:
    """As ``host_id``, but only processes of one network share it. Who puts them into networks of
    their own wants what they say to each other to cross the network between them."""
    own = host_id()
    if not own:
        return ""
    try:
        network = os.readlink(_NETWORK)
    except OSError:
        network = ""
    return hashlib.sha256(f"{own} {network}".encode()).hexdigest()[:ID_LENGTH]


def _linux_boot() -> bytes:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_bytes().strip()
    return b""


def _darwin_boot() -> bytes:
    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if library.sysctlbyname(_DARWIN_BOOT, buffer, ctypes.byref(size), None, 0) == 0:
            return buffer.value
    return b""
