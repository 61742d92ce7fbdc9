"""A file that hangs its reader: a file system of our own that never answers a read.

As on a network drive whose server is gone, not even a kill ends the reader, until the file system
goes away. Linux, as root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_IN = struct.Struct("<IIQQIIII")  # length, operation, number, node, user, group, process, padding
_OUT = struct.Struct("<IiQ")  # length, error, number
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_LOOKUP, _GETATTR, _OPEN, _READ, _INIT = 1, 3, 14, 15, 26
_ROOT, _FILE, _SIZE = 1, 2, 1 << 20
_ENOSYS = 38
_MNT_FORCE, _MNT_DETACH = 1, 2


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o444
    return _ATTRIBUTES.pack(node, _SIZE, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(operation: int, node: int) -> bytes | None:
    """None for no answer ever; empty for an operation that there is not."""
    if operation == _INIT:
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0)
    if operation == _LOOKUP:
        return struct.pack("<QQQQII", _FILE, 0, 60, 60, 0, 0) + _attributes(_FILE)
    if operation == _GETATTR:
        return struct.pack("<QII", 60, 0, 0) + _attributes(node)
    if operation == _OPEN:
        return struct.pack("<QII", 1, 0, 0)
    return None if operation == _READ else b""


@contextlib.contextmanager
def hanging_file(folder: Path) -> Iterator[Path]:
    """The file's path. At the end its readers go on, with an error. Skips the test where this
    system allows no such thing."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("this system allows no file systems of ours")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hanging", str(folder).encode(), b"fuse", 6, options):
        os.close(device)
        pytest.skip("this system allows no file systems of ours")

    def serve() -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                request = os.read(device, 1 << 18)
                _, operation, number, node, *_ = _IN.unpack_from(request)
                body = _answer(operation, node)
                if body is not None:
                    error = 0 if body else -_ENOSYS
                    os.write(device, _OUT.pack(_OUT.size + len(body), error, number) + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield folder / "file"
    finally:
        release_readers(folder)
        os.close(device)
        thread.join(5)


def release_readers(folder: Path) -> None:
    """Ends the file system: whoever reads its file goes on, with an error."""
    ctypes.CDLL(None).umount2(str(folder).encode(), _MNT_DETACH | _MNT_FORCE)
