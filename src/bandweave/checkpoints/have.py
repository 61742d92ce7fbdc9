"""Have: which parts of a file are on this machine, in a table beside the file that is being filled.

The file has its full size from the start and holes where nothing was fetched yet. The table has an
entry for each unit of it: the CRC-32 of what was written there, or nothing. An entry is written
after its unit was synced to the disk, so that a machine that loses its power loses only time. Any
number of processes fill one file at once: each claims units with locks that the kernel gives back
when a process ends, however it ends. Knows no networks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bandweave import files
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable

try:
    import fcntl as _fcntl
except ImportError:  # Windows: the table can be looked at, and nothing is filled there
    _fcntl = None

SUFFIX = ".have"
WHOLE_SUFFIX = ".whole"  # of the mark of a file that was filled and found to be the right one

_MAGIC = b"bandweave have 1\n"
_HEAD_BYTES = 4096
_LEAST_UNIT, _MOST_UNIT, _UNITS = 1 << 10, 1 << 16, 1 << 18
_HELD = 0x68617665  # a unit is held where its second word is the first one and this, exclusive or
_CLAIMS = 1 << 40  # the locks lie behind the table's end: they are of numbers, not of bytes
_FIELDS = ("kind", "endpoint", "repo", "commit", "path", "etag")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rest of a file comes from. ``kind`` says who fetches it (see ``fetching``).
    ``etag`` names the content: its SHA-256 in hexadecimal, or whatever else the hub says of it."""

    kind: str
    endpoint: str
    repo: str
    commit: str
    path: str
    etag: str
    size: int

    @property
    def sha256(self) -> str:
        """Of the whole file; empty where the hub does not say."""
        return self.etag if len(self.etag) == 64 else ""


def sidecar_of(path: Path) -> Path:
    """Where the table of a file lies, or would."""
    return path.with_name(path.name + SUFFIX)


def mark_of(path: Path) -> Path:
    """Where the mark lies of a file that is whole."""
    return path.with_name(path.name + WHOLE_SUFFIX)


def make_partial(path: Path, origin: Origin) -> None:
    """Makes an empty file of its full size with its table, unless both are there. ``OSError`` where
    they cannot be written."""
    sidecar = sidecar_of(path)
    if not sidecar.exists():
        unit = unit_of(origin.size)
        head = {**asdict(origin), "unit": unit}
        text = _MAGIC + json.dumps(head).encode()
        if len(text) >= _HEAD_BYTES:
            raise ValueError(f"the names of {printable(path)} are too long")
        partial = sidecar.with_name(f"{sidecar.name}.{secrets.token_hex(4)}.partial")
        try:
            with open(partial, "xb") as file:
                file.write(text.ljust(_HEAD_BYTES))
                file.truncate(_HEAD_BYTES + 8 * -(-origin.size // unit))
                file.flush()
                os.fsync(file.fileno())
            # Before the data, and under its name at once: a file without a table counts as whole.
            with contextlib.suppress(FileExistsError):
                os.link(partial, sidecar)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(descriptor).st_size != origin.size:
            os.ftruncate(descriptor, origin.size)
    finally:
        os.close(descriptor)


def unit_of(size: int) -> int:
    """Bytes of a unit of a file: small enough that a share of a small tensor is fetched with
    little beside it, and so large that the table of 50 GB has 6 MB."""
    unit = _LEAST_UNIT
    while unit < _MOST_UNIT and size > unit * _UNITS:
        unit *= 2
    return unit


class Have:
    """An open table. Threads may use it at once; close it when none does."""

    def __init__(self, path: Path, descriptor: int, origin: Origin, unit: int) -> None:
        """Takes what ``open`` has checked."""
        self.path, self.origin, self.unit = path, origin, unit
        self.num_units = -(-origin.size // unit)
        self._descriptor = descriptor
        # Written by calls, not here: on a full disk those fail, and a mapping kills the process.
        self._map = mmap.mmap(descriptor, _HEAD_BYTES + 8 * self.num_units, access=mmap.ACCESS_READ)
        self._table: npt.NDArray[np.uint32] = np.frombuffer(
            self._map, "<u4", count=2 * self.num_units, offset=_HEAD_BYTES
        ).reshape(-1, 2)
        self._claimed: list[range] = []
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Have:
        """The table at ``path``; ``FileNotFoundError`` where there is none any more, and
        ``CheckpointError`` where it is damaged or cannot be opened."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"{printable(path)} cannot be opened to be written: {error.strerror}; a download "
                "is filled as it is used, so its folder must be writable"
            ) from error
        try:
            origin, unit = _read_head(path, descriptor)
            return cls(path, descriptor, origin, unit)
        except BaseException:
            os.close(descriptor)
            raise

    # --- what is there ---

    def held(self, units: range) -> npt.NDArray[np.bool_]:
        """Which of the units are on the disk."""
        table = self._table[units.start : units.stop]
        return (table[:, 0] ^ table[:, 1]) == _HELD

    def missing(self, units: range) -> list[range]:
        """The runs of units that are not."""
        held = self.held(units)
        if held.all():
            return []
        edges = np.flatnonzero(np.diff(np.concatenate([[True], held, [True]]).astype(np.int8)))
        starts, stops = edges[::2] + units.start, edges[1::2] + units.start
        return [range(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]

    def checksums(self, units: range) -> list[int]:
        """CRC-32 of units that are held."""
        return self._table[units.start : units.stop, 0].tolist()

    @property
    def held_bytes(self) -> int:
        """Bytes of the file that are on the disk."""
        held = self.held(range(self.num_units))
        count = int(held.sum()) * self.unit
        if self.num_units and held[-1]:
            count -= self.num_units * self.unit - self.origin.size
        return count

    @property
    def complete(self) -> bool:
        """Whether all units are held."""
        return bool(self.held(range(self.num_units)).all())

    def units(self, start: int, stop: int) -> range:
        """The units that bytes lie in."""
        return range(start // self.unit, -(-stop // self.unit)) if stop > start else range(0)

    def bytes(self, units: range) -> range:
        """The bytes of units."""
        return range(units.start * self.unit, min(units.stop * self.unit, self.origin.size))

    # --- filling ---

    @contextlib.contextmanager
    def claim(self, units: range) -> Iterator[bool]:
        """Whether the units are this thread's to fill, for as long as the block lasts; False where
        another one, of whatever process, is at some of them."""
        got = self._try_claim(units)
        try:
            yield got
        finally:
            if got:
                _lock(self._descriptor, False, _CLAIMS + units.start, len(units))
                with self._lock:
                    self._claimed.remove(units)

    def record(self, first: int, checksums: Sequence[int]) -> None:
        """Units from ``first`` on are on the disk, synced, with these CRC-32."""
        crc = np.array(checksums, np.uint32)
        entries = np.stack([crc, crc ^ np.uint32(_HELD)], axis=1).astype("<u4")
        self._write(first, entries.tobytes())

    def forget(self, units: range) -> None:
        """The units have to be fetched again."""
        self._write(units.start, bytes(8 * len(units)))

    def close(self) -> None:
        """To be called once, when no thread uses it."""
        del self._table
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self._descriptor)

    def _write(self, first: int, entries: bytes) -> None:
        try:
            os.pwrite(self._descriptor, entries, _HEAD_BYTES + 8 * first)
        except OSError as error:
            raise CheckpointError(
                f"{printable(self.path)} cannot be written: {error.strerror}"
            ) from error

    def _try_claim(self, units: range) -> bool:
        with self._lock:
            if any(one.start < units.stop and units.start < one.stop for one in self._claimed):
                return False
            if not _lock(self._descriptor, True, _CLAIMS + units.start, len(units)):
                return False
            self._claimed.append(units)
            return True


def _lock(descriptor: int, lock: bool, start: int, length: int) -> bool:
    """Locks a range of numbers, or unlocks it; False where somebody else has it. The lock belongs
    to the open file where the system has such locks, so that two openings in one process exclude
    each other too."""
    fcntl = _fcntl
    if fcntl is None:
        return True
    kind = fcntl.F_WRLCK if lock else fcntl.F_UNLCK
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        else:
            how = fcntl.LOCK_EX | fcntl.LOCK_NB if lock else fcntl.LOCK_UN
            fcntl.lockf(descriptor, how, length, start, os.SEEK_SET)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return True  # a file system without locks: at worst something is fetched twice
        raise
    return True


def _read_head(path: Path, descriptor: int) -> tuple[Origin, int]:
    def damaged(how: str) -> CheckpointError:
        return CheckpointError(f"{printable(path)} {how}; remove it and the file beside it")

    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if not head.startswith(_MAGIC):
        raise damaged("is no table of a download")
    value = files.parse_object(
        head[len(_MAGIC) :], printable(path), CheckpointError, "; remove it and the file beside it"
    )
    size, unit = value.get("size"), value.get("unit")
    fields = {name: value.get(name) for name in _FIELDS}
    if type(size) is not int or type(unit) is not int or size < 0:
        raise damaged("is damaged")
    if not all(isinstance(text, str) for text in fields.values()) or unit != unit_of(size):
        raise damaged("is damaged")
    if os.fstat(descriptor).st_size != _HEAD_BYTES + 8 * -(-size // unit):
        raise damaged("has another length than it should")
    return Origin(size=size, **fields), unit  # type: ignore[arg-type]
