"""CacheFolder: the one folder on disk that bandweave may fill and empty by itself.

Deletes nothing but files of its own names, in a folder that it has marked as its own. Keeps under a
quota, and under its part of the disk, by forgetting what was used longest ago. Knows names and
sizes; knows nothing of what the files hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from bandweave.environment import DOWNLOADS, read_environment
from bandweave.whole_file import whole_file

DEFAULT_QUOTA_BYTES = 64 * 10**9
FREE_FRACTION = 0.5  # of what would be free without it, at most, however large the quota

MARK = "CACHEDIR.TAG"
# The first line is what backup programs look for (https://bford.info/cachedir/), the second ours.
_MARK_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Packed weights of bandweave, which it makes again where they are missing.\n"
)
_SUBFOLDER = re.compile(r"[0-9a-f]{2}", re.ASCII)
_NAME = r"[0-9a-f]{64}((\.\d{1,18}-\d{1,18})?(\.[0-9a-f]{16})?\.panels|\.content)"
_OWN = re.compile(_NAME, re.ASCII)
_PARTIAL = re.compile(rf"{_NAME}\.[0-9a-f]{{8}}\.partial", re.ASCII)
_UNNAMED = re.compile(r"\.[0-9a-f]{16}\.partial", re.ASCII)  # see ``whole_file``
_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """A file of the cache; ``used_at`` in seconds since the epoch."""

    path: Path
    num_bytes: int
    used_at: float


class CacheFolder:
    """``path`` need not exist; the first file makes it."""

    def __init__(self, path: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> None:
        self.path, self.quota_bytes = path, quota_bytes

    def check(self) -> None:
        """``ValueError`` for a path that holds anything else than a cache: what is put there is
        deleted without a question one day. ``PermissionError`` where nobody can tell."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(
                f"the cache of packed weights cannot be {self.path}, which is a file; set "
                "BANDWEAVE_CACHE to a folder of its own, or to `off`"
            )
        if not self._is_ours():
            raise ValueError(
                f"{self.path} holds other files than packed weights, and a cache deletes what is "
                "in it; set BANDWEAVE_CACHE to a folder of its own, or to `off`"
            )

    def place(self, name: str) -> Path:
        """Where a file of this name lies, or would."""
        return self.path / name[:2] / name

    def names(self) -> Iterator[str]:
        """The names of all files of the cache."""
        for path, _ in self._walk():
            if _OWN.fullmatch(path.name):
                yield path.name

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write, which takes its name once the block ends without an error.

        ``OSError`` where it cannot be written. Whatever ends the process, nothing is left but a
        file without a writer, which the next look at the folder removes.
        """
        self._prepare()
        place = self.place(name)
        place.parent.mkdir(exist_ok=True)
        partial = place.with_name(f"{name}.{secrets.token_hex(4)}.partial")
        with _nameless(place.parent) or _named(partial) as file:
            try:
                yield file
                if not partial.exists():
                    _give_name(file, partial)
                partial.rename(place)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
        touch(place)

    def files(self) -> list[CacheFile]:
        """All files of the cache. What writers that have ended left is removed on the way."""
        found = []
        for path, status in self._walk():
            if _OWN.fullmatch(path.name):
                found.append(
                    CacheFile(path=path, num_bytes=status.st_size, used_at=status.st_mtime)
                )
            elif _PARTIAL.fullmatch(path.name):
                _remove_abandoned(path, status)
        return found

    def room(self) -> Room:
        """What there is room for; looks at all files once."""
        return Room(self, self.files())

    def limit_bytes(self, own_bytes: int) -> int:
        """What the cache may take now, if it has ``own_bytes``: its quota, and never more than a
        fraction of what would be free without it."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(_existing(self.path)).free
            return min(self.quota_bytes, int((free + own_bytes) * FREE_FRACTION))
        return 0

    def clear(self) -> int:
        """Deletes all files of the cache; the bytes that this freed."""
        freed = sum(unlink(file) for file in self.files())
        for folder in self._subfolders():
            with contextlib.suppress(OSError):  # holds a stranger, or a file that is being written
                folder.rmdir()
        return freed

    # --- what is ours ---

    def _is_ours(self) -> bool:
        """Whether the folder is marked, or may be: it is empty, or holds nothing but what
        versions wrote that did not mark it."""
        if (mark := self._mark()) == _MARK_TEXT:
            return True
        with os.scandir(self.path) as found:
            for entry in found:
                if entry.name == MARK and mark is not None and _MARK_TEXT.startswith(mark):
                    continue  # a disk that was full kept no more of it
                if _UNNAMED.fullmatch(entry.name):
                    continue  # it was being marked
                own = entry.name == DOWNLOADS or _SUBFOLDER.fullmatch(entry.name)
                if not own or not entry.is_dir(follow_symlinks=False):
                    return False
        names = [path.name for path, _ in self._walk()]
        return all(_OWN.fullmatch(name) or _PARTIAL.fullmatch(name) for name in names)

    def _prepare(self) -> None:
        """Makes and marks the folder; ``OSError`` for one that is not the cache's."""
        self.path.mkdir(parents=True, exist_ok=True)
        mark = self._mark()
        if mark is not None and (mark == _MARK_TEXT or not _MARK_TEXT.startswith(mark)):
            return
        if not self._is_ours():
            raise PermissionError(f"{self.path} is not the cache's")
        with whole_file(self.path / MARK) as file:
            file.write(_MARK_TEXT)

    def _mark(self) -> bytes | None:
        """What there is of the mark; None where there is none."""
        with contextlib.suppress(OSError), open(self.path / MARK, "rb") as file:
            return file.read(len(_MARK_TEXT))
        return None

    def _subfolders(self) -> list[Path]:
        """Never through a link: what is elsewhere is somebody else's."""
        folders = []
        with contextlib.suppress(OSError), os.scandir(self.path) as found:
            for entry in found:
                if _SUBFOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
        return folders

    def _walk(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Whatever lies in the folders that hold the files; a folder or a link there included."""
        for folder in self._subfolders():
            with contextlib.suppress(OSError), os.scandir(folder) as found:
                for entry in found:
                    with contextlib.suppress(OSError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)


class Room:
    """How much more a cache may hold, while files are added to it."""

    def __init__(self, folder: CacheFolder, files: list[CacheFile]) -> None:
        self._folder = folder
        # A clock that was wrong, and is right again, leaves times that are yet to come.
        latest = time.time() + _DAY
        known = [file if file.used_at < latest else replace(file, used_at=0.0) for file in files]
        self._oldest_last = sorted(known, key=lambda file: file.used_at, reverse=True)
        self._own = sum(file.num_bytes for file in files)

    def make(self, size: int, since: float = float("inf")) -> bool:
        """Whether ``size`` more bytes are within the limit, once what was used longest ago, before
        ``since`` (seconds since the epoch), has gone."""
        limit = self._folder.limit_bytes(self._own)
        while self._own + size > limit:
            if not self._oldest_last or self._oldest_last[-1].used_at >= since:
                return False
            self._own -= unlink(self._oldest_last.pop())
        return True

    def taken(self, size: int) -> None:
        """A file of ``size`` bytes was added."""
        self._own += size


def default_folder() -> str:
    """Where this machine keeps packed weights; empty for nowhere, as where the folder is another
    user's and closed (``sudo -u`` keeps the home). ``ValueError`` for a folder that holds anything
    else."""
    folder = read_environment().cache
    if folder is None:
        return ""
    try:
        CacheFolder(folder).check()
    except PermissionError:
        return ""
    return str(folder)


def touch(path: Path) -> None:
    """Used just now, by the clock that ``since`` is told by; a file system's own may lag behind."""
    now = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(path, ns=(now, now))


def unlink(file: CacheFile) -> int:
    """The bytes that this freed."""
    with contextlib.suppress(OSError):
        file.path.unlink()
        return file.num_bytes
    return 0


def _nameless(folder: Path) -> BinaryIO | None:
    """A file that has no name yet, so that its writer's death leaves nothing; None where the file
    system or the system has no such thing."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
    return _lock(open(descriptor, "r+b", buffering=0))


def _give_name(file: BinaryIO, path: Path) -> None:
    # With a descriptor of the folder: without one Python calls link, which does not follow links.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", path.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _named(partial: Path) -> BinaryIO:
    return _lock(open(partial, "x+b", buffering=0))


def _lock(file: BinaryIO) -> BinaryIO:
    """Locked for as long as it is open: whoever finds its name sees that it is being written."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _remove_abandoned(path: Path, status: os.stat_result) -> None:
    """Removes a file that nobody writes; where locks do not work, a day tells."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            return
        except OSError:
            if time.time() - status.st_mtime > _DAY:
                path.unlink()
        finally:
            os.close(descriptor)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)
