"""PanelCache: packed weights on disk, so that a model starts again as fast as its bytes are read.

An entry is a range of one tensor's rows or columns (`engine.panel_sections`), so that a node of
another split finds its own range in the entries of others. Knows files and ranges; knows no
tensor's meaning. A damaged, foreign or missing entry is simply packed again; a full disk only means
that nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bandweave import NUMERICS_VERSION
from bandweave.engine.panel_entry import (
    Bytes,
    DamagedError,
    Header,
    entry_bytes,
    read_entry,
    write_entry,
)
from bandweave.engine.panel_sections import Section, missing
from bandweave.planning.split import Range

LAYOUT_VERSION = 2  # of the packed panels and of the entries' files
DEFAULT_QUOTA_BYTES = 64 * 10**9
FREE_FRACTION = 0.5  # of what would be free without it, at most, however large the quota
_SUFFIX = ".panels"
_NAME = re.compile(r"[0-9a-f]{64}\.(\d+)-(\d+)\.panels")
_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry on disk; ``model``, ``weight`` and ``weight_format`` are empty where it does not
    say."""

    path: Path
    model: str
    weight: str
    weight_format: str
    num_bytes: int
    used_at: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    num_bytes: int
    used_at: float


def open_cache(folder: str) -> PanelCache | None:
    """The cache in a folder; None where that is empty."""
    return PanelCache(Path(folder)) if folder else None


class PanelCache:
    """A folder of packed ranges that stays under a quota, and under its part of the disk, by
    forgetting what was used longest ago."""

    def __init__(self, folder: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> None:
        self.folder, self.quota_bytes = folder, quota_bytes

    @staticmethod
    def key(section: Section, content: str, weight_format: str) -> str:
        """Names all entries of one tensor's kind by what their bytes depend on but the range: the
        ``content`` of the tensor's files, format, units, numerics and layout."""
        parts = [LAYOUT_VERSION, NUMERICS_VERSION, weight_format, content]
        parts += [section.axis, section.unit, section.step, section.whole]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    # --- entries ---

    def load(self, key: str, section: Section, panels: Bytes, weight_format: str) -> list[Range]:
        """Fills what it can of a section in the matrix ``panels``; what is left to do, in order."""
        held = self._held(key)
        found: list[Range] = []
        while (step := _next(section.range, found, list(held))) is not None:
            source, part = step
            try:
                read_entry(held[source], section, part, panels, weight_format)
            except (DamagedError, OSError) as error:
                path = held.pop(source)
                if isinstance(error, DamagedError):
                    with contextlib.suppress(OSError):
                        path.unlink()
                continue
            _touch(held[source])
            found.append(part)
        return missing(section.range, found)

    def store(
        self,
        key: str,
        section: Section,
        part: Range,
        panels: Bytes,
        *,
        model: str,
        weight: str,
        weight_format: str,
        since: float = float("inf"),
    ) -> bool:
        """Keeps a part of a section, if there is room or what was last used before ``since``
        (seconds since the epoch) makes some; whether it is kept."""
        path = self.folder / key[:2] / f"{key}.{part.start}-{part.stop}{_SUFFIX}"
        names = {"model": model, "weight": weight, "weight_format": weight_format}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._make_room(entry_bytes(section, part, weight_format), since):
                return False
            write_entry(path, section, part, panels, names)
            _touch(path)
        except (OSError, ValueError):
            return False
        return True

    # --- the folder ---

    def limit_bytes(self, own_bytes: int) -> int:
        """What the cache may take now, if it has ``own_bytes``: its quota, and never more than a
        fraction of what would be free without it."""
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return 0
        return min(self.quota_bytes, int((free + own_bytes) * FREE_FRACTION))

    def trim(self) -> None:
        """Forgets the entries used longest ago until the rest is within the limit."""
        self._make_room(0, float("inf"))

    def entries(self) -> list[Entry]:
        """What is kept, unreadable entries too."""
        found = []
        for file in self._files():
            with contextlib.suppress(OSError):
                found.append(
                    Entry(path=file.path, num_bytes=file.num_bytes, used_at=file.used_at,
                          **_names(file.path))
                )  # fmt: skip
        return found

    def clear(self) -> int:
        """Forgets everything; the bytes that this freed."""
        return sum(_unlink(file) for file in self._files())

    def _held(self, key: str) -> dict[Range, Path]:
        """The entries of a key by their ranges."""
        held = {}
        for path in (self.folder / key[:2]).glob(f"{key}.*"):
            if match := _NAME.fullmatch(path.name):
                held[Range(start=int(match[1]), stop=int(match[2]))] = path
        return held

    def _make_room(self, size: int, since: float) -> bool:
        """Whether ``size`` more bytes are within the limit, once what was used longest ago, before
        ``since``, has gone."""
        files = sorted(self._files(), key=lambda file: file.used_at)
        own = sum(file.num_bytes for file in files)
        limit = self.limit_bytes(own)
        for file in files:
            if own + size <= limit or file.used_at >= since:
                break
            own -= _unlink(file)
        return own + size <= limit

    def _files(self) -> list[_File]:
        """All entries' files. Leftovers of writers that died a day ago are removed on the way."""
        found = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
                if path.suffix == _SUFFIX:
                    found.append(
                        _File(path=path, num_bytes=status.st_size, used_at=status.st_mtime)
                    )
                elif time.time() - status.st_mtime > _DAY:
                    path.unlink()
            except OSError:
                continue
        return found


def _next(needed: Range, found: list[Range], held: list[Range]) -> tuple[Range, Range] | None:
    """The entry to read next, and what of it: the whole range at once if one has just that, else
    from the first place that is missing and can be had, as far as one goes."""
    if not found and needed in held:
        return needed, needed
    for gap in missing(needed, found):
        inside = [one for one in held if one.start < gap.stop and one.stop > gap.start]
        if not inside:
            continue
        start = max(gap.start, min(one.start for one in inside))
        best = max(
            (one for one in inside if one.start <= start < one.stop), key=lambda one: one.stop
        )
        return best, Range(start=start, stop=min(best.stop, gap.stop))
    return None


def _names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {"model": "", "weight": "", "weight_format": ""}
    with contextlib.suppress(DamagedError), open(path, "rb", buffering=0) as file:
        header = Header.read(file.fileno())
        names = {name: str(getattr(header, name)) for name in names}
    return names


def _touch(path: Path) -> None:
    """Used just now, by the clock that ``since`` is told by; a file system's own may lag behind."""
    now = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(path, ns=(now, now))


def _unlink(file: _File) -> int:
    """The bytes that this freed."""
    with contextlib.suppress(OSError):
        file.path.unlink()
        return file.num_bytes
    return 0
