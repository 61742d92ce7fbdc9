"""Somebody on the way: passes on what two ends say to each other, and does something to one piece.

A piece is what one read brings. Who tampers knows no keys; so this sees bytes and no meaning.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bandweave.mesh.address import Address

FLIP, REPEAT, SWAP, DROP, CUT, END, REFLECT, INSERT = HOWS = (
    "flip", "repeat", "swap", "drop", "cut", "end", "reflect", "insert",
)  # fmt: skip


@dataclass(kw_only=True)
class Tampering:
    """What is done to piece ``at`` (from 0) of a direction; ``forward`` is that of who connected.
    ``done``: whether it was."""

    how: str
    seed: int
    at: int
    forward: bool = True
    done: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._seen = 0
        self._held = b""
        self._lock = threading.Lock()

    def change(self, piece: bytes, forward: bool) -> tuple[bytes, bytes, bool]:
        """What is sent on, what is sent back to where it came from, and whether all ends."""
        with self._lock:
            if forward != self.forward:
                return piece, b"", False
            number, self._seen = self._seen, self._seen + 1
            if self._held:
                piece, self._held = piece + self._held, b""
            if number != self.at:
                return piece, b"", False
            self.done = True
            return self._tamper(piece)

    def _tamper(self, piece: bytes) -> tuple[bytes, bytes, bool]:
        rng, how = self._random, self.how
        place = rng.randrange(len(piece))
        if how == FLIP:
            changed = bytearray(piece)
            changed[place] ^= 1 << rng.randrange(8)
            return bytes(changed), b"", False
        if how == REPEAT:
            return piece + piece, b"", False
        if how == SWAP:
            self._held = piece
            return b"", b"", False
        if how == DROP:
            return b"", b"", False
        if how == CUT:
            return piece[:place], b"", False
        if how == END:
            return piece[:place], b"", True
        if how == REFLECT:
            return b"", piece, False
        return rng.randbytes(rng.choice((1, 4, 36, 300))) + piece, b"", False


class Between:
    """Passes bytes both ways between two sockets, which it owns; ``near`` belongs to who
    connected. ``altered``: whether anything was done to a piece."""

    def __init__(
        self, near: socket.socket, far: socket.socket,
        change: Callable[[bytes, bool], tuple[bytes, bytes, bool]],
    ) -> None:  # fmt: skip
        self._ends, self._change = (near, far), change
        self._sending = threading.Lock()
        self.altered = False
        for source, target, forward in ((near, far, True), (far, near, False)):
            thread = threading.Thread(target=self._pass, args=(source, target, forward))
            thread.daemon = True
            thread.start()

    def _pass(self, source: socket.socket, target: socket.socket, forward: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                on, back, ending = self._change(piece, forward)
                self.altered |= (on, back, ending) != (piece, b"", False)
                for sock, data in ((target, on), (source, back)):
                    if data:
                        with self._sending:
                            sock.sendall(data)
                if ending:
                    self.hang_up()
                    return
            target.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        for end in self._ends:
            end.close()


class Proxy:
    """A port that leads to another one, through somebody who tampers. A context manager."""

    def __init__(
        self, target: Address, change: Callable[[bytes, bool], tuple[bytes, bytes, bool]],
    ) -> None:  # fmt: skip
        self._target, self._change = target, change
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._socket.getsockname()[:2]
        self.pairs: list[Between] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                far = socket.create_connection(self._target)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.pairs.append(Between(near, far, self._change))

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for pair in self.pairs:
            pair.close()
