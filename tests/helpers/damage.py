"""A link whose frames pass through this process, which may change one of them on the way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from bandweave import _native
from tests.helpers.linked_nodes import HEADER, PROGRESS

# What becomes of a frame: its kind, and its bytes, header and payload.
Change = Callable[[int, bytearray], None]


class FrameRelay:
    """Links two nodes and hands every frame of ``sender`` that is no progress to ``change``."""

    def __init__(
        self, a: _native.Exchange, b: _native.Exchange, ends: tuple[int, int], sender: int,
        change: Change,
    ) -> None:  # fmt: skip
        low, high = ends
        left, near = socket.socketpair()
        far, right = socket.socketpair()
        a.add_tcp(high, left.detach())
        b.add_tcp(low, right.detach())
        self._ends = (near, far)
        way, back = (near, far), (far, near)
        if sender == high:
            way, back = back, way
        threading.Thread(target=self._frames, args=(*way, change), daemon=True).start()
        threading.Thread(target=self._bytes, args=back, daemon=True).start()

    def _frames(self, source: socket.socket, target: socket.socket, change: Change) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as stream:
            while len(head := stream.read(HEADER.size)) == HEADER.size:
                fields = HEADER.unpack(head)
                whole = bytearray(head + stream.read(fields[7]))
                if fields[1] != PROGRESS:
                    change(fields[1], whole)
                target.sendall(whole)
            target.shutdown(socket.SHUT_WR)

    def _bytes(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
