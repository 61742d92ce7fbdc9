"""Handover: connections of other nodes, from a worker that took them to the process of a node.

A node of a worker has no port of its own. The worker authenticates who connects and passes on the
socket, and the keys that came of the handshake, over the stream socket that joins it to the node's
process: records of one size, each with a descriptor or with a sentence. Knows descriptors; knows no
handshake.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from bandweave.handshake.connection import Arrived
from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.hello import NO_NODE
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.mesh.sealing import Keys
from bandweave.run_options import MAX_NODES

# Node, bytes of the sentence, flags, the keys to send and to receive with, the sentence.
_RECORD = struct.Struct("<ihB32s32s441s")
_SENTENCE_BYTES = 441
_SEALED, _LOCAL = 1, 2
_FILES = MAX_NODES + 1  # added to the node of a connection for files
MET = {"type": "met"}

OnFiles = Callable[[int, Arrived], None]  # the node at the other end, NO_NODE: the controller


def hand_over(channel: Channel, node: int, arrived: Arrived, *, files: bool = False) -> None:
    """Gives the connection of ``node`` away, one for ``files`` or for the mesh. Never waits:
    ``OSError`` where the process at the other end of ``channel`` has ended or takes nothing."""
    sock, keys, local = arrived
    flags = (_SEALED if keys is not None else 0) | (_LOCAL if local else 0)
    send, receive = (b"", b"") if keys is None else (keys.send, keys.receive)
    number = node + _FILES if files else node
    _send(channel, _RECORD.pack(number, 0, flags, send, receive, b""), [sock.fileno()])


def report_misfit(channel: Channel, node: int, sentence: str) -> None:
    """Says that ``node`` came and does not fit. Errors as ``hand_over``."""
    text = sentence.encode()[:_SENTENCE_BYTES]
    _send(channel, _RECORD.pack(node, len(text), 0, b"", b"", text), [])


def _send(channel: Channel, record: bytes, descriptors: list[int]) -> None:
    # One small piece: a stream socket of the system's own takes it whole or not at all.
    with socket.socket(fileno=channel.fileno()) as stream:
        try:
            if socket.send_fds(stream, [record], descriptors) != _RECORD.size:
                raise OSError("the node's process took half a record")
        finally:
            stream.detach()


class Arrivals:
    """The node's end: connections of other nodes, as they are asked for. A thread takes them as
    they come."""

    def __init__(self, channel: Channel) -> None:
        """``channel`` leads to the worker, which sends no more messages over it."""
        self._channel = channel
        self._stream = socket.socket(fileno=channel.fileno())
        self._mesh: dict[int, Arrived] = {}
        self._refused: dict[int, str] = {}
        self._files: list[tuple[int, Arrived]] = []  # before anybody takes them
        self._on_files: OnFiles | None = None
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._over, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)
        self._thread.start()

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> Arrived:
        """The connection from ``node`` of this session, in blocking mode. Errors as
        ``Listener.get_mesh``; ``ChannelClosed`` where the worker has gone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while node not in self._mesh and node not in self._refused:
                if self._failure is not None:
                    raise self._failure
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"node {node} did not connect within {timeout:g} s")
                self._changed.wait(left)
            if node in self._mesh:
                return self._mesh.pop(node)
            raise HandshakeError(f"node {node} does not fit, {self._refused[node]}")

    def serve_files(self, on_files: OnFiles) -> None:
        """From now on ``on_files`` gets the connections for files, those that have come too; it
        is called in a thread that must not wait."""
        with self._changed:
            self._on_files = on_files
            waiting, self._files = self._files, []
        for node, arrived in waiting:
            on_files(node, arrived)

    def open(self) -> None:
        """Nodes are expected, for the first time or again; the worker passes them on at any
        time."""
        with self._changed:
            self._refused.clear()

    def finish(self) -> None:
        """All nodes have met: nobody else is expected, as the worker hears."""
        self._drop()
        with contextlib.suppress(OSError):  # a worker that has gone ends this process anyway
            self._channel.send(MET)

    def close(self) -> None:
        """Closes what nobody asked for. The channel stays open."""
        with contextlib.suppress(OSError):
            self._wake.close()
        self._thread.join()
        self._over.close()
        self._drop()
        for _, arrived in self._files:
            arrived.socket.close()
        self._stream.detach()

    def _drop(self) -> None:
        with self._changed:
            for arrived in self._mesh.values():
                arrived.socket.close()
            self._mesh.clear()

    # --- in the thread ---

    def _run(self) -> None:
        readable = select.poll()
        readable.register(self._stream, select.POLLIN)
        readable.register(self._over, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in readable.poll()}
                if self._over.fileno() in ready:
                    return
                self._read()
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _read(self) -> None:
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        record, descriptors, _, _ = socket.recv_fds(self._stream, _RECORD.size, 1, flags)
        if not record:
            raise ChannelClosed("the worker has gone")
        with contextlib.ExitStack() as received:
            socks = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            for sock in socks:
                received.callback(sock.close)
            if len(record) != _RECORD.size:
                raise ChannelClosed("the worker sent half a record")
            node, length, flags, send, receive, text = _RECORD.unpack(record)
            assert 0 <= length <= _SENTENCE_BYTES
            if not socks:
                assert 0 <= node < MAX_NODES
                with self._changed:
                    self._refused[node] = text[:length].decode(errors="replace")
                    self._changed.notify_all()
                return
            socks[0].setblocking(True)
            keys = Keys(send=send, receive=receive) if flags & _SEALED else None
            arrived = Arrived(socks[0], keys, bool(flags & _LOCAL))
            if node >= MAX_NODES:
                received.pop_all()
                self._take_files(node - _FILES, arrived)
                return
            assert 0 <= node < MAX_NODES
            with self._changed:
                received.pop_all()
                # A second one from the same node: it never saw the worker's welcome and tried
                # again.
                older = self._mesh.pop(node, None)
                if older is not None:
                    older.socket.close()
                self._mesh[node] = arrived
                self._changed.notify_all()

    def _take_files(self, node: int, arrived: Arrived) -> None:
        assert NO_NODE <= node < MAX_NODES
        with self._changed:
            on_files = self._on_files
            if on_files is None:
                self._files.append((node, arrived))
                return
        on_files(node, arrived)
