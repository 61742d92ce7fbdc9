"""Relays: ports that lead to another one, whose connections can be cut, held up, or written down.

For cables and strangers in tests. Knows bytes only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_PIECE = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset


class Relay:
    """Listens at ``port`` of this machine, and passes on what comes to ``to`` and back. ``sent``:
    what each connection's caller said, by the order in which they came, if ``keeps``."""

    def __init__(self, to: tuple[str, int], *, keeps: bool = False) -> None:
        self.to, self._keeps = to, keeps
        self.sent: list[bytearray] = []
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._flows.clear()

    def cut(self, *, reset: bool = False) -> None:
        """Ends all connections that there are."""
        with self._lock:
            socks, self._open = self._open, set()
        for sock in socks:
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self._flows.set()
        self.cut()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._lead(near)

    def _lead(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self.to, 10)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        note = bytearray() if self._keeps else None
        if note is not None:
            self.sent.append(note)
        with self._lock:
            self._open |= {near, far}
        for source, target, kept in ((near, far, note), (far, near, None)):
            threading.Thread(target=self._copy, args=(source, target, kept), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if kept is not None:
                    kept += data
                self._flows.wait()
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with self._lock:  # the other direction closes what it still uses
            self._open.discard(source)
        source.close()
