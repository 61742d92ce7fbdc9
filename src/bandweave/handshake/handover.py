"""Handover: connections of other nodes, from a worker that took them to the process of a node.

A node of a worker has no port of its own. The worker authenticates who connects and passes on the
socket, over the stream socket that joins it to the node's process: records of one size, each with a
descriptor or with a sentence. Knows descriptors; knows no handshake.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import time

from bandweave.handshake.handshake import HandshakeError
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.run_options import MAX_NODES

_RECORD = struct.Struct("<ih506s")  # node, bytes of the sentence, the sentence
_SENTENCE_BYTES = 506
MET = {"type": "met"}


def hand_over(channel: Channel, node: int, sock: socket.socket) -> None:
    """Gives the connection of ``node`` away. Never waits: ``OSError`` where the process at the
    other end of ``channel`` has ended or takes nothing."""
    _send(channel, _RECORD.pack(node, 0, b""), [sock.fileno()])


def report_misfit(channel: Channel, node: int, sentence: str) -> None:
    """Says that ``node`` came and does not fit. Errors as ``hand_over``."""
    text = sentence.encode()[:_SENTENCE_BYTES]
    _send(channel, _RECORD.pack(node, len(text), text), [])


def _send(channel: Channel, record: bytes, descriptors: list[int]) -> None:
    # One small piece: a stream socket of the system's own takes it whole or not at all.
    with socket.socket(fileno=channel.fileno()) as stream:
        try:
            if socket.send_fds(stream, [record], descriptors) != _RECORD.size:
                raise OSError("the node's process took half a record")
        finally:
            stream.detach()


class Arrivals:
    """The node's end: connections of other nodes, as they are asked for."""

    def __init__(self, channel: Channel) -> None:
        """``channel`` leads to the worker, which sends no more messages over it."""
        self._channel = channel
        self._stream = socket.socket(fileno=channel.fileno())
        self._mesh: dict[int, socket.socket] = {}
        self._refused: dict[int, str] = {}

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> socket.socket:
        """The connection from ``node`` of this session, in blocking mode. Errors as
        ``Listener.get_mesh``; ``ChannelClosed`` where the worker has gone."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        readable = select.poll()
        readable.register(self._stream, select.POLLIN)
        while node not in self._mesh and node not in self._refused:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"node {node} did not connect within {timeout:g} s")
            if readable.poll(None if timeout is None else math.ceil(left * 1000)):
                self._read()
        if node in self._mesh:
            return self._mesh.pop(node)
        raise HandshakeError(f"node {node} does not fit, {self._refused[node]}")

    def open(self) -> None:
        """Nodes are expected, for the first time or again; the worker passes them on at any
        time."""
        self._refused.clear()

    def finish(self) -> None:
        """All nodes have met: nobody else is expected, as the worker hears."""
        for sock in self._mesh.values():
            sock.close()
        self._mesh.clear()
        with contextlib.suppress(OSError):  # a worker that has gone ends this process anyway
            self._channel.send(MET)

    def close(self) -> None:
        """Closes what nobody asked for. The channel stays open."""
        for sock in self._mesh.values():
            sock.close()
        self._mesh.clear()
        self._stream.detach()

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
            node, length, text = _RECORD.unpack(record)
            assert 0 <= node < MAX_NODES and 0 <= length <= _SENTENCE_BYTES
            if not socks:
                self._refused[node] = text[:length].decode(errors="replace")
                return
            received.pop_all()
            socks[0].setblocking(True)
            # A second one from the same node: it never saw the worker's welcome and tried again.
            older = self._mesh.pop(node, None)
            if older is not None:
                older.close()
            self._mesh[node] = socks[0]
