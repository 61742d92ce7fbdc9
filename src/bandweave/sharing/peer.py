"""Peer: another machine of the session, as a place to get files from.

Keeps a few connections, whoever made them. Knows frames; writes nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, LifoQueue
from typing import Any

from bandweave.checkpoints.source import CheckpointError
from bandweave.mesh.printable import printable
from bandweave.mesh.stream import Stream
from bandweave.sharing.frames import FramesError, receive_frame, send_frame
from bandweave.sharing.server import MOST_READ

_PATIENCE = 20.0  # seconds without a sign of life
_LOOK_SECONDS = 0.2  # between two looks at whether nobody waits for an answer any more
_MOST_REASON = 400


class PeerError(CheckpointError):
    """A peer that does not give what was asked for."""


class Peer:
    """``name`` is for people. ``connect`` makes one more connection; None where others make them
    and ``add`` them."""

    def __init__(
        self, name: str, connect: Callable[[], Stream] | None = None, most: int = 4
    ) -> None:
        self.name = name
        self._connect, self._most = connect, most
        self._idle: LifoQueue[Stream] = LifoQueue()
        self._made = 0
        self._used: set[Stream] = set()
        self._over = False
        self._lock = threading.Lock()
        self.gone = False

    def add(self, stream: Stream) -> None:
        """One more connection."""
        stream.settimeout(_PATIENCE)
        self._idle.put(stream)

    def listing(self, timeout: float) -> dict[str, Any]:
        """What the peer has. ``PeerError`` where it does not say."""
        with self._borrowed(timeout) as stream:
            send_frame(stream, {"type": "list"})
            message, _ = self._receive(stream)
            if message.get("type") != "files":
                raise FramesError("it says what nobody asked")
            return message

    def fetch(self, file: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a range of a file. ``PeerError`` where they do not come."""
        for first in range(start, stop, MOST_READ):
            last = min(first + MOST_READ, stop)
            with self._borrowed(_PATIENCE) as stream:
                send_frame(stream, {"type": "read", "file": file, "start": first, "stop": last})
                left = last - first
                while left:
                    message, body = self._receive(stream)
                    if message.get("type") != "bytes" or not 0 < len(body) <= left:
                        raise FramesError("it sent other bytes than were asked for")
                    left -= len(body)
                    yield body

    def close(self) -> None:
        """Ends all connections that nobody uses just now."""
        self.gone = True
        with contextlib.suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def interrupt(self) -> None:
        """Ends all connections, whoever waits for something: that comes to an end with
        ``PeerError``."""
        with self._lock:
            self._over = True
            for stream in self._used:
                stream.hang_up()
        self.close()

    def _receive(self, stream: Stream) -> tuple[dict[str, Any], bytes]:
        while True:
            message, body = receive_frame(stream)
            if message.get("type") == "failed":
                raise PeerError(f"{self.name}: {printable(message.get('reason'), _MOST_REASON)}")
            if message.get("type") != "wait":
                return message, body

    @contextlib.contextmanager
    def _borrowed(self, timeout: float) -> Iterator[Stream]:
        """A connection for one question and its answer; one that is left in the middle of an
        answer ends."""
        try:
            stream = self._take(timeout)
            with self._lock:
                self._used.add(stream)
                if self._over:
                    stream.hang_up()
            try:
                yield stream
            except BaseException as error:
                with self._lock:
                    self._used.discard(stream)
                if isinstance(error, PeerError):  # it has said so, and goes on
                    self._idle.put(stream)
                else:
                    stream.close()
                    with self._lock:
                        self._made -= 1
                raise
            with self._lock:
                self._used.discard(stream)
            self._idle.put(stream)
        except (OSError, Empty) as error:
            self.gone = True
            why = str(error) or "it has no connection"
            raise PeerError(f"{self.name} gives no files: {why}") from error

    def _take(self, timeout: float) -> Stream:
        with contextlib.suppress(Empty):
            return self._idle.get_nowait()
        if self._connect is not None:
            with self._lock:
                more = self._made < self._most
                self._made += more
            if more:
                try:
                    stream = self._connect()
                except BaseException:
                    with self._lock:
                        self._made -= 1
                    raise
                stream.settimeout(_PATIENCE)
                return stream
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return self._idle.get(timeout=max(0.0, min(left, _LOOK_SECONDS)))
            except Empty:
                if left <= _LOOK_SECONDS or self._over:
                    raise
