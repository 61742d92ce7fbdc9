"""PanelCache: packed weights on disk, so that a model starts again as fast as its bytes are read.

Knows files and packed matrices; knows no tensor's meaning. A damaged, foreign or missing entry is
simply packed again; a full disk only means that nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bandweave import NUMERICS_VERSION, _native

LAYOUT_VERSION = 1  # of the packed panels and of the entries' header
DEFAULT_QUOTA_BYTES = 64 * 10**9
_HEADER_BYTES = 4096
_SUFFIX = ".panels"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One packed matrix on disk."""

    path: Path
    model: str
    weight: str
    weight_format: str
    num_bytes: int
    used_at: float  # seconds since the epoch


def open_cache(folder: str) -> PanelCache | None:
    """The cache in a folder; None where that is empty."""
    return PanelCache(Path(folder)) if folder else None


class PanelCache:
    """A folder of packed matrices that stays under a quota by forgetting what was used longest
    ago."""

    def __init__(self, folder: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> None:
        self.folder, self.quota_bytes = folder, quota_bytes

    @staticmethod
    def key(content: Sequence[str], weight_format: str, description: str) -> str:
        """Names a matrix by all that its bytes depend on: the ``content`` of the tensors' files,
        the parts and units (``description``), format, numerics and layout."""
        parts = [LAYOUT_VERSION, NUMERICS_VERSION, weight_format, description, *content]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def load(self, key: str, matrix: _native.Matrix) -> bool:
        """Fills a matrix from its entry; False where there is none that can be used."""
        path = self._path(key)
        target = matrix.panels
        try:
            with open(path, "rb", buffering=0) as file:
                header = json.loads(file.read(_HEADER_BYTES).rstrip(b"\0"))
                if header["bytes"] != target.nbytes or not _read_into(file.fileno(), target):
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if header.get("checksum") != _native.checksum(target):
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def store(
        self, key: str, matrix: _native.Matrix, *, model: str, weight: str, weight_format: str
    ) -> None:
        """Keeps a packed matrix, if there is room."""
        panels = matrix.panels
        header = {
            "bytes": panels.nbytes,
            "checksum": _native.checksum(panels),
            "model": model,
            "weight": weight,
            "format": weight_format,
        }
        text = json.dumps(header).encode()
        if len(text) > _HEADER_BYTES or panels.nbytes > self.quota_bytes:
            return
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < 2 * panels.nbytes:
                return
            with open(partial, "wb", buffering=0) as file:
                file.write(text.ljust(_HEADER_BYTES, b"\0"))
                view = panels.data
                while view:
                    view = view[file.write(view[: 64 << 20]) or 0 :]
            partial.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def trim(self) -> None:
        """Forgets the entries used longest ago until the rest is under the quota."""
        entries = sorted(self.entries(), key=lambda entry: entry.used_at)
        total = sum(entry.num_bytes for entry in entries)
        for entry in entries:
            if total <= self.quota_bytes:
                break
            with contextlib.suppress(OSError):
                entry.path.unlink()
            total -= entry.num_bytes

    def entries(self) -> list[Entry]:
        """What is kept. Leftovers of writers that died a day ago are removed on the way."""
        found = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
                if path.suffix != _SUFFIX:
                    if time.time() - status.st_mtime > 86400:
                        path.unlink()
                    continue
                with open(path, "rb", buffering=0) as file:
                    header = json.loads(file.read(_HEADER_BYTES).rstrip(b"\0"))
                found.append(
                    Entry(
                        path=path,
                        model=str(header["model"]),
                        weight=str(header["weight"]),
                        weight_format=str(header["format"]),
                        num_bytes=status.st_size,
                        used_at=status.st_mtime,
                    )
                )
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def clear(self) -> int:
        """Forgets everything; the bytes that this freed."""
        freed = 0
        for entry in self.entries():
            with contextlib.suppress(OSError):
                entry.path.unlink()
                freed += entry.num_bytes
        return freed

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"


def _read_into(descriptor: int, target: npt.NDArray[np.uint8]) -> bool:
    view = target.data
    offset = _HEADER_BYTES
    while view:
        count = os.preadv(descriptor, [view[: 64 << 20]], offset)
        if count == 0:
            return False
        view, offset = view[count:], offset + count
    return True
