"""PanelCache: packed weights on disk, so that a model starts again as fast as its bytes are read.

An entry is a range of one tensor's rows or columns (`weights.panel_sections`), so that a node of
another split finds its own range in the entries of others. It is used for weights of the very
content that it was packed from, whatever their file is called and whatever its times say; what a
file holds is known from when it was read, as long as nobody can have written to it since
(`TensorSource.file_key`). Knows files and ranges; knows no tensor's meaning. A damaged, foreign or
missing entry is simply packed again; a full disk only means that nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandweave import NUMERICS_VERSION
from bandweave.content.blocks import U64, Content
from bandweave.content.kept import read_content, write_content
from bandweave.ranges import Range
from bandweave.weights.cache_folder import DEFAULT_QUOTA_BYTES, CacheFolder, Room, touch
from bandweave.weights.panel_entry import (
    Bytes,
    DamagedError,
    Header,
    OtherContentError,
    entry_bytes,
    read_entry,
    write_entry,
)
from bandweave.weights.panel_sections import Section, missing

LAYOUT_VERSION = 3  # of the packed panels and of the entries' files
_ENTRY = re.compile(r"([0-9a-f]{64})\.(\d+)-(\d+)\.([0-9a-f]{16})\.panels", re.ASCII)
_CONTENT_SUFFIX = ".content"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the cache; ``model``, ``weight`` and ``weight_format`` are empty where it does
    not say."""

    path: Path
    model: str
    weight: str
    weight_format: str
    num_bytes: int
    used_at: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Held:
    """An entry by its name; ``content`` is the digest of its steps' content sums."""

    name: str
    range: Range
    content: str


def open_cache(folder: str) -> PanelCache | None:
    """The cache in a folder; None where that is empty. ``ValueError`` for a folder that holds
    anything else."""
    if not folder:
        return None
    cache = PanelCache(Path(folder))
    cache.folder.check()
    return cache


class PanelCache:
    """A folder of packed ranges, and of what is known of the files that they were packed from."""

    def __init__(self, path: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> None:
        self.folder = CacheFolder(path, quota_bytes)

    @staticmethod
    def key(section: Section, tensors: str, weight_format: str) -> str:
        """Names all entries of one section's kind by what their bytes depend on but range and
        content: the ``tensors`` that they are packed from (names, dtypes, shapes), format, units,
        numerics and layout."""
        parts = [LAYOUT_VERSION, NUMERICS_VERSION, weight_format, tensors]
        parts += [section.axis, section.unit, section.step, section.whole]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    # --- entries ---

    def held(self) -> dict[str, list[Held]]:
        """The entries that there are, by their keys."""
        held: dict[str, list[Held]] = defaultdict(list)
        for name in self.folder.names():
            if match := _ENTRY.fullmatch(name):
                place = Range(start=int(match[2]), stop=int(match[3]))
                held[match[1]].append(Held(name=name, range=place, content=match[4]))
        return held

    def load(
        self,
        held: Sequence[Held],
        section: Section,
        wanted: Range,
        panels: Bytes,
        sums: U64,
        weight_format: str,
    ) -> list[Range]:
        """Fills what it can of a part of a section in the matrix ``panels`` from the entries of
        its key; what is left to do, in order. ``sums``: the content of each step of the part."""
        held = list(held)
        found: list[Range] = []
        while (step := _next(wanted, found, held, _digest(sums))) is not None:
            source, part = step
            path = self.folder.place(source.name)
            first = section.steps(Range(start=wanted.start, stop=part.start))
            expected = sums[first : first + section.steps(part)]
            try:
                read_entry(path, section, part, panels, expected, weight_format)
            except (DamagedError, OtherContentError, OSError) as error:
                held.remove(source)
                if isinstance(error, DamagedError):
                    with contextlib.suppress(OSError):
                        path.unlink()
                continue
            touch(path)
            found.append(part)
        return missing(wanted, found)

    def store(
        self,
        key: str,
        section: Section,
        part: Range,
        panels: Bytes,
        sums: U64,
        *,
        names: Mapping[str, str],
        room: Room,
        since: float = float("inf"),
    ) -> bool:
        """Keeps a part of a section, whose steps have these content ``sums``, if there is ``room``
        or what was last used before ``since`` (seconds since the epoch) makes some; whether it is
        kept. ``names``: ``model``, ``weight`` and ``weight_format``."""
        name = f"{key}.{part.start}-{part.stop}.{_digest(sums)}.panels"
        size = entry_bytes(section, part, names["weight_format"])
        try:
            if self.folder.place(name).exists():  # packed from another copy of the same weights
                touch(self.folder.place(name))
                return True
            if not room.make(size, since):
                return False
            with self.folder.writing(name) as file:
                write_entry(file, section, part, panels, sums, {"name": name, **names})
            room.taken(size)
        except (OSError, ValueError):
            return False
        return True

    # --- what checkpoints' files hold ---

    def known(self, file_key: str) -> Content:
        """What was learnt of a file when it was read."""
        path = self.folder.place(file_key + _CONTENT_SUFFIX)
        content = read_content(path, file_key)
        if content.tensors:
            touch(path)
        return content

    def remember(self, file_key: str, content: Content) -> None:
        """Adds to what is known of a file."""
        together = self.known(file_key)
        together.update(content)
        name = file_key + _CONTENT_SUFFIX
        with contextlib.suppress(OSError), self.folder.writing(name) as file:
            write_content(file, file_key, together)

    # --- the folder ---

    def trim(self) -> None:
        """Forgets the entries used longest ago until the rest is within the limit."""
        self.folder.room().make(0)

    def entries(self) -> list[Entry]:
        """What is kept, unreadable entries too."""
        found = []
        for file in self.folder.files():
            if file.path.suffix == _CONTENT_SUFFIX:
                continue
            with contextlib.suppress(OSError):
                found.append(
                    Entry(path=file.path, num_bytes=file.num_bytes, used_at=file.used_at,
                          **_names(file.path))
                )  # fmt: skip
        return found

    def clear(self) -> int:
        """Forgets everything; the bytes that this freed."""
        return self.folder.clear()


def _next(
    needed: Range, found: list[Range], held: list[Held], content: str
) -> tuple[Held, Range] | None:
    """The entry to read next, and what of it: the whole range at once if one has just that and its
    content, else from the first place that is missing and can be had, as far as one goes."""
    if not found:
        for one in held:
            if one.range == needed and one.content == content:
                return one, needed
    for gap in missing(needed, found):
        inside = [one for one in held if one.range.start < gap.stop and one.range.stop > gap.start]
        if not inside:
            continue
        start = max(gap.start, min(one.range.start for one in inside))
        best = max(
            (one for one in inside if one.range.start <= start < one.range.stop),
            key=lambda one: one.range.stop,
        )
        return best, Range(start=start, stop=min(best.range.stop, gap.stop))
    return None


def _digest(sums: U64) -> str:
    return hashlib.blake2b(sums.astype("<u8").tobytes(), digest_size=8).hexdigest()


def _names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {"model": "", "weight": "", "weight_format": ""}
    with contextlib.suppress(DamagedError), open(path, "rb", buffering=0) as file:
        header = Header.read(file.fileno())
        names = {name: str(getattr(header, name)) for name in names}
    return names
