"""Frames: what crosses a connection for files: a JSON object, and bytes with their CRC-32.

On the wire: ``"bwf1"``, the lengths of both and the checksum (32-bit, little-endian), the JSON
text, the bytes. Knows no message's meaning.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from bandweave.mesh.stream import Stream

_PREFIX = struct.Struct("<4sIII")
_MAGIC = b"bwf1"
_MOST_TEXT, MOST_BODY = 16 << 20, 4 << 20


class FramesError(ConnectionError):
    """A peer that does not keep to the format, or has gone."""


def send_frame(stream: Stream, message: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Sends one frame. ``OSError`` where the peer has gone, ``TimeoutError`` where it takes
    nothing for as long as the stream's timeout says."""
    text = json.dumps(message, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(_MAGIC, len(text), len(body), zlib.crc32(body))
    stream.send(prefix + text)
    if body:
        stream.send(body)


def receive_frame(stream: Stream) -> tuple[dict[str, Any], bytes]:
    """The next frame. ``FramesError`` where it makes no sense, was damaged on the way, or does not
    come; ``TimeoutError`` where nothing comes for as long as the stream's timeout says."""
    magic, text_bytes, body_bytes, crc = _PREFIX.unpack(_read(stream, _PREFIX.size))
    if magic != _MAGIC or text_bytes > _MOST_TEXT or body_bytes > MOST_BODY:
        raise FramesError("it does not speak the protocol for files")
    text, body = _read(stream, text_bytes), _read(stream, body_bytes)
    if zlib.crc32(body) != crc:
        raise FramesError("what it sent was damaged on the way")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise FramesError("it sent text that is no JSON object")
    return message, bytes(body)


def _read(stream: Stream, count: int) -> bytearray:
    try:
        return stream.receive(count)
    except ConnectionError as error:
        raise FramesError(str(error)) from error
