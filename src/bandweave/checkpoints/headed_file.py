"""HeadedFile: an open weight file whose header says where each tensor lies. Knows no format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bandweave.checkpoints.byte_file import ByteFile, LocalFile


class TensorEntry(NamedTuple):  # made in a third of a dataclass's time; a model has 100,000
    """Where a tensor lies: bytes ``[start, stop)`` of its file, C order, little endian."""

    name: str
    dtype: str  # the format's name: "F32", "BF16", "Q4_K" ...
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class HeadedFile:
    """Its header has been checked. ``close`` it when no read is under way."""

    file: ByteFile
    header_sha256: bytes
    tensors: Mapping[str, TensorEntry]

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.size

    @property
    def key(self) -> str:
        """64 hexadecimal digits for this very file as it is now; empty where nothing tells."""
        return self.file.key(self.header_sha256)

    @property
    def descriptor(self) -> int | None:
        """Of the open file, to read from; None where not all of it is on this machine.
        ``CheckpointError`` where it was written to."""
        if not isinstance(self.file, LocalFile):
            return None
        self.file.check_unchanged()
        return self.file.descriptor

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fills ``target`` (bytes) from ``offset`` on; several threads may read at once."""
        self.file.read_into(target, offset)

    def prepare(self, start: int, length: int, stride: int, count: int) -> None:
        """Runs of bytes will be read one by one; see ``Readable``."""
        self.file.prepare(start, length, stride, count)

    def close(self) -> None:
        """Closes the file; to be called once."""
        self.file.close()
