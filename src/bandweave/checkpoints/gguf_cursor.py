"""Cursor: goes through the header of a GGUF file, reading no more of it than is needed.

Knows numbers and texts; knows no fields.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from bandweave.checkpoints.byte_file import ByteFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable

_MAX_TEXT_BYTES = 16_000_000  # of a text, and of all texts that are kept
_MAX_ITEMS = 1_000_000  # of all arrays that are kept
_MAX_PASSED = 2_000_000  # items of all arrays that are not kept; vocabularies have a fifth of it
_MAX_HEADER_BYTES = 64_000_000
_READ_BYTES = 1 << 20  # of the file at once, and doubled as long as the header goes on
_LENGTH = struct.Struct("<Q")


class Cursor:
    """Goes through a header, of which ``content`` is what has been read.

    All of it fits in a few times 64 MB, whatever the file says. ``CheckpointError`` where it ends
    too early, or asks for more.
    """

    def __init__(self, file: ByteFile, content: bytes = b"", position: int = 0) -> None:
        self.path, self._file, self.size = printable(file.path), file, file.size
        self.content, self.position = content, position
        self._text_bytes = self._passed = self._items = 0

    def need(self, count: int) -> int:
        """The place of the next ``count`` bytes, which are there."""
        start = self.position
        if start + count > len(self.content):
            self._read(start + count)
        self.position = start + count
        return start

    def _read(self, stop: int) -> None:
        if stop > self.size:
            raise CheckpointError(
                f"{self.path} is cut short: its header goes beyond byte {self.size}; download it "
                "again"
            )
        if stop > _MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{self.path} has a header of more than {_MAX_HEADER_BYTES} bytes; it is damaged"
            )
        have = len(self.content)
        more = bytearray(min(self.size, max(stop, 2 * have, _READ_BYTES)) - have)
        self._file.read_into(memoryview(more), have)
        self.content += bytes(more)

    def number(self, letter: str) -> Any:
        start = self.need(struct.calcsize("<" + letter))  # before what it reads is looked at
        return struct.unpack_from("<" + letter, self.content, start)[0]

    def real(self) -> float:
        """A float32 as the shortest decimal that stands for it: what was meant before it was
        rounded, 1e-5 say."""
        return float(str(np.float32(self.number("f"))))

    def numbers(self, letter: str, count: int) -> list[Any]:
        start = self.need(count * struct.calcsize("<" + letter))
        return list(struct.unpack_from(f"<{count}{letter}", self.content, start))

    def text(self, most: int = _MAX_TEXT_BYTES) -> str:
        """The next text; all of them together must not fill the memory."""
        length = self.number("Q")
        self._text_bytes += length
        if length > most or self._text_bytes > _MAX_TEXT_BYTES:
            raise self._too_long(length)
        start = self.need(length)
        return self.content[start : self.position].decode("utf-8", "surrogateescape")

    def texts(self, count: int) -> list[str]:
        """As many texts as ``text`` one by one, in a quarter of the time: vocabularies have some
        hundred thousand."""
        found: list[str] = []
        at, left = self.position, _MAX_TEXT_BYTES - self._text_bytes
        content, unpack, add = self.content, _LENGTH.unpack_from, found.append
        have = len(content)
        for _ in range(count):
            start = at + 8
            if start > have:
                self._read(start)
                content, have = self.content, len(self.content)
            (length,) = unpack(content, at)
            left -= length
            if left < 0:
                raise self._too_long(length)
            at = start + length
            if at > have:
                self._read(at)
                content, have = self.content, len(self.content)
            add(content[start:at].decode("utf-8", "surrogateescape"))
        self.position, self._text_bytes = at, _MAX_TEXT_BYTES - left
        return found

    def _too_long(self, length: int) -> CheckpointError:
        return CheckpointError(f"{self.path}: a text of {length} bytes in the header; damaged")

    def keep(self, count: int) -> None:
        """Counts items of arrays that are kept."""
        self._items += count
        if self._items > _MAX_ITEMS:
            raise CheckpointError(f"{self.path}: arrays of {self._items} items; it is damaged")

    def skip(self, count: int, letter: str | None) -> None:
        """Goes past the items of an array: numbers of this letter, or texts."""
        self._passed += count
        if self._passed > _MAX_PASSED:
            raise CheckpointError(f"{self.path}: arrays of {self._passed} items; it is damaged")
        if letter is not None:
            self.need(count * struct.calcsize("<" + letter))
            return
        at, content, unpack = self.position, self.content, _LENGTH.unpack_from
        last = len(content) - 8  # where a length can begin
        for _ in range(count):  # the hot loop of opening a file
            if at > last:
                self._read(at + 8)
                content = self.content
                last = len(content) - 8
            at += 8 + unpack(content, at)[0]
        self.position = at
        self.need(0)  # the last one is there, too
