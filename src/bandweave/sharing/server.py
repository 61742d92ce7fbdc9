"""FileServer: gives ranges of a model's files to whoever has proved the secret.

Only files of the folder that was opened, by their names: a path never comes from the other side.
What is missing here is fetched first. Knows folders and frames; connects to nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from bandweave import files
from bandweave.checkpoints.byte_file import ByteFile
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.mesh.host import host_id
from bandweave.sharing.frames import FramesError, receive_frame, send_frame

MOST_READ = 16 << 20  # bytes of one request
_PIECE = 1 << 20
_SIGN_SECONDS = 2.0  # between two signs of life while something is fetched
_SMALL_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_MOST_SMALL = 256_000_000
_READERS = 4


class FileServer:
    """Serves one folder over any number of connections, each in a thread of its own. Close it
    before the folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.store = store_id(folder)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="files")
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def serve(self, sock: socket.socket) -> None:
        """Takes a connection over; does not wait."""
        with self._lock:
            if self._closed:
                sock.close()
                return
            self._sockets.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), name="files", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Ends all connections, and waits for what they read."""
        with self._lock:
            self._closed = True
            sockets = list(self._sockets)
        partial = [
            file for file in self._folder.byte_files.values() if isinstance(file, PartialFile)
        ]
        for file in partial:  # whoever asked for it has gone
            file.interrupted.set()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(cancel_futures=True)
        for file in partial:
            file.interrupted.clear()

    def _run(self, sock: socket.socket) -> None:
        try:
            with sock, contextlib.suppress(OSError):
                while True:
                    request, _ = receive_frame(sock)
                    self._answer(sock, request)
        finally:
            with self._lock:
                self._sockets.discard(sock)

    def _answer(self, sock: socket.socket, request: dict[str, Any]) -> None:
        kind = request.get("type")
        try:
            if kind == "list":
                send_frame(sock, self._listing())
            elif kind == "read":
                self._read(sock, request)
            else:
                raise FramesError("a question of no kind")
        except (CheckpointError, FileNotFoundError) as error:
            send_frame(sock, {"type": "failed", "reason": str(error)})

    def _listing(self) -> dict[str, Any]:
        weights = {name: [file.size, file.whole] for name, file in self._folder.byte_files.items()}
        small = {path.name: path.stat().st_size for path in _small(self._folder.path)}
        fingerprint = self._folder.layout_fingerprint()
        return {
            "type": "files",
            "store": self.store,
            "weights": weights,
            "small": small,
            "start": "" if self._folder.path.is_dir() else self._folder.path.name,
            "config": fingerprint.config,
            "headers": fingerprint.headers,
        }

    def _read(self, sock: socket.socket, request: dict[str, Any]) -> None:
        name, start, stop = (request.get(field) for field in ("file", "start", "stop"))
        if type(start) is not int or type(stop) is not int or not 0 <= start <= stop:
            raise FramesError("a range that is none")
        if stop - start > MOST_READ or not isinstance(name, str):
            raise FramesError("a range that is too long")
        file = self._folder.byte_files.get(name)
        if file is None:
            self._send_small(sock, name, start, stop)
            return
        if stop > file.size:
            raise FramesError("a range behind the end of a file")
        self._await(sock, self._pool.submit(_fetch, file, start, stop))
        buffer = memoryview(bytearray(min(_PIECE, stop - start)))
        for first in range(start, stop, _PIECE):
            piece = buffer[: min(_PIECE, stop - first)]
            file.read_into(piece, first)
            send_frame(sock, {"type": "bytes"}, piece)

    def _send_small(self, sock: socket.socket, name: str, start: int, stop: int) -> None:
        found = {path.name: path for path in _small(self._folder.path)}
        if name not in found:
            raise FileNotFoundError(f"there is no file {name[:80]!r}")
        content = files.read_bytes(found[name], most=_MOST_SMALL, error=CheckpointError)
        for first in range(start, min(stop, len(content)), _PIECE):
            send_frame(sock, {"type": "bytes"}, content[first : min(first + _PIECE, stop)])

    def _await(self, sock: socket.socket, task: Future[None]) -> None:
        """Waits for what is fetched, and says that it lives."""
        while True:
            try:
                task.result(_SIGN_SECONDS)
                return
            except NotYet:
                send_frame(sock, {"type": "wait"})


def store_id(folder: Folder) -> str:
    """Tells whether two processes have the very same weight files before them."""
    first = min(file.path for file in folder.byte_files.values())
    status = os.lstat(first)  # two folders may have links to one file, and tables of their own
    text = f"{host_id()} {status.st_dev} {status.st_ino}"
    return hashlib.sha256(text.encode()).hexdigest()


def _fetch(file: ByteFile, start: int, stop: int) -> None:
    """What is missing of a range, from where this machine gets it: asking another node that asks
    this one would never end."""
    if isinstance(file, PartialFile):
        file.ensure(file.have.units(start, stop), direct=True)


def is_small(name: str) -> bool:
    """Whether a file of that name stands beside weights."""
    return name.endswith(_SMALL_SUFFIXES) and not name.startswith((".", "bandweave."))


def _small(folder: Path) -> list[Path]:
    """The files beside the weights that a model needs."""
    if not folder.is_dir():  # a GGUF file holds all
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if is_small(path.name) and path.is_file() and path.stat().st_size <= _MOST_SMALL
    ]
