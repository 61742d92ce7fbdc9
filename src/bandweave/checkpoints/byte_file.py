"""ByteFile: a weight file as bytes that can be read from anywhere in it, wherever they come from.

``LocalFile`` is a whole file of this machine; ``partial_file`` has those that are being filled.
Knows no formats.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bandweave import files
from bandweave.checkpoints.file_identity import FileIdentity
from bandweave.checkpoints.have import sidecar_of
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable


class Readable(Protocol):
    """Bytes that can be read from anywhere."""

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fills ``target`` (bytes) from ``offset`` on; several threads may read at once.
        ``CheckpointError`` where they cannot be had."""
        ...

    def prepare(self, start: int, length: int, stride: int, count: int) -> None:
        """Is told that ``count`` runs of ``length`` bytes, ``stride`` apart, will be read one by
        one; what is not on this machine comes at once so."""
        ...


class ByteFile(Readable, Protocol):
    """An open file of ``size`` bytes; messages name its ``path``."""

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    @property
    def whole(self) -> bool:
        """Whether all of it is on this machine."""
        ...

    @property
    def fetched_bytes(self) -> int:
        """How much of it has come from elsewhere since it was opened."""
        ...

    @property
    def moved(self) -> int:
        """Grows while bytes come from elsewhere, or what has come is compared."""
        ...

    def key(self, header_sha256: bytes) -> str:
        """64 hexadecimal digits for this very file, with a header of that digest, which no other
        file has, nor this one once it holds something else; empty where that cannot be told."""
        ...

    def close(self) -> None:
        """To be called once, when no read is under way."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A ``ByteFile`` that lies here."""

    path: Path
    size: int
    identity: FileIdentity
    descriptor: int

    whole, fetched_bytes, moved = True, 0, 0

    @classmethod
    def open(cls, path: Path) -> LocalFile:
        """``CheckpointError`` where there is no such file, or it cannot be opened."""
        descriptor = files.open_regular(path, CheckpointError)
        status = os.fstat(descriptor)
        return cls(
            path=path,
            size=status.st_size,
            identity=FileIdentity.of(status),
            descriptor=descriptor,
        )

    def read_into(self, target: memoryview, offset: int) -> None:
        """As ``ByteFile`` says."""
        done = files.read_at(self.descriptor, self.path, target, offset, CheckpointError)
        if done < len(target):
            raise CheckpointError(
                f"{printable(self.path)} ends at byte {offset + done}, {len(target) - done} bytes "
                "too early; it was changed while it was read, so start again with a whole file"
            )
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """``CheckpointError`` where the file was written to since it was opened: what was read
        before and what is read now would be of two models. It may lose its name, or get others."""
        status = os.fstat(self.descriptor)
        known = (self.identity.size, self.identity.modified_ns)
        if (status.st_size, status.st_mtime_ns) != known:
            raise CheckpointError(
                f"{printable(self.path)} was written to while it was in use; start again, and "
                "give another version a folder of its own"
            )

    def prepare(self, start: int, length: int, stride: int, count: int) -> None:
        """As ``ByteFile`` says: it is all here."""

    def key(self, header_sha256: bytes) -> str:
        """As ``ByteFile`` says."""
        return self.identity.key(header_sha256)

    def close(self) -> None:
        """As ``ByteFile`` says."""
        os.close(self.descriptor)


def open_file(path: Path) -> ByteFile:
    """Opens a weight file, or one that is filled as it is read where a table of what is there lies
    beside it; ``CheckpointError`` where there is none, or it cannot be opened."""
    if files.is_there(sidecar_of(path)):
        with contextlib.suppress(FileNotFoundError):  # another process has just completed it
            return PartialFile.open(path)
    return LocalFile.open(path)
