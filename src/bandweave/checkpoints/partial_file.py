"""PartialFile: a file that is filled as it is read.

What is missing of a range is fetched, in several connections where it is long, and kept; what is
there was checked against its checksum before it is given out, once each time the file is opened.
Knows tables and fetchers; knows no formats and no networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bandweave import files
from bandweave.checkpoints.fetching import Fetcher, open_fetcher
from bandweave.checkpoints.have import Have, Origin, mark_of, sidecar_of
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable
from bandweave.whole_file import whole_file

#: Where ranges come from: the bytes from one offset to another, in order.
Source = Callable[[int, int], Iterator[bytes]]
#: Cuts units into runs, each with where it is to come from; None: from the file's own origin.
Route = Callable[[range], Sequence[tuple[range, Source | None]]]

CONNECTIONS = 8  # of one read, at most
REQUEST_BYTES = 8 << 20  # of one request, at most: what a kill costs is a part of it
_SYNC_BYTES = 4 << 20
_GAP_BYTES = 128 << 10  # a request of its own takes longer than these
_LOOK_SECONDS = 0.02  # between two looks at what others fetch
_CHECK_BYTES = 1 << 20
_HASH_BYTES = 8 << 20


class DamagedFile(CheckpointError):
    """A file that is whole and not what it should be; nothing of it is kept."""


class PartialFile:
    """A ``ByteFile`` of which some may lie elsewhere."""

    def __init__(
        self, path: Path, descriptor: int, have: Have, make: Callable[[Origin], Fetcher]
    ) -> None:
        """Takes what ``open`` has checked."""
        self.path, self.size, self.have = path, have.origin.size, have
        self._descriptor, self._make = descriptor, make
        self._checked = np.zeros(have.num_units, np.bool_)
        self._fetcher: Fetcher | None = None
        self.interrupted = threading.Event()  # while it is set, whatever is fetched ends
        self.route: Route | None = None  # other machines that may have it, or will
        self._lock = threading.Lock()
        self.fetched_bytes = self.moved = 0  # by this opening of it

    @classmethod
    def open(cls, path: Path, make: Callable[[Origin], Fetcher] = open_fetcher) -> PartialFile:
        """``FileNotFoundError`` where there is no table beside the file (any more);
        ``CheckpointError`` where they do not fit or cannot be opened."""
        have = Have.open(sidecar_of(path))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            have.close()
            raise CheckpointError(
                f"{printable(path)} cannot be opened to be filled: {error.strerror}; remove "
                f"{printable(have.path)} and run again"
            ) from error
        if (found := os.fstat(descriptor).st_size) != have.origin.size:
            have.close()
            os.close(descriptor)
            raise CheckpointError(
                f"{printable(path)} has {found} bytes in the place of {have.origin.size}; remove "
                f"it and {printable(have.path)} and run again"
            )
        return cls(path, descriptor, have, make)

    @property
    def whole(self) -> bool:
        """Whether nothing of it is elsewhere."""
        return self.have.complete

    def read_into(self, target: memoryview, offset: int) -> None:
        """As ``ByteFile`` says; fetches what is missing."""
        stop = offset + len(target)
        if not 0 <= offset <= stop <= self.size:
            raise CheckpointError(
                f"{printable(self.path)} has {self.size} bytes, but {offset} to {stop} were asked "
                "for; its header is of another file"
            )
        units = self.have.units(offset, stop)
        if not len(units):
            return
        self.ensure(units)
        for damaged in self._check(units):
            self._drop(damaged)
            self.ensure(damaged)
        if self._check(units):
            raise CheckpointError(
                f"{printable(self.path)} does not keep what is written to it; is its disk sound?"
            )
        self._pread(target, offset)

    def prepare(self, start: int, length: int, stride: int, count: int) -> None:
        """Fetches runs of ``length`` bytes, ``stride`` apart, before they are read one by one, with
        the gaps between them where those are short."""
        if count and stride - length <= _GAP_BYTES:
            stop = min(self.size, start + (count - 1) * stride + length)
            self.ensure(self.have.units(start, stop))

    def key(self, header_sha256: bytes) -> str:
        """As ``ByteFile`` says: of the content that the hub promises, whatever of it is here."""
        origin = self.have.origin
        text = json.dumps([origin.kind, origin.etag, origin.size, header_sha256.hex()])
        return hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """As ``ByteFile`` says."""
        if self._fetcher is not None:
            self._fetcher.close()
        self.have.close()
        os.close(self._descriptor)

    # --- fetching ---

    def ensure(self, units: range, *, direct: bool = False) -> None:
        """Fetches what is missing of the units, and waits for what others fetch; ``direct``: from
        the file's origin, whatever ``route`` says. ``CheckpointError`` where some cannot be
        had."""
        fetched, stop = False, threading.Event()
        while missing := self.have.missing(units):
            self._check_interrupted()
            most = max(1, REQUEST_BYTES // self.have.unit)
            route = None if direct else self.route
            pieces = [
                (range(start, min(start + most, some.stop)), source)
                for run in missing
                for some, source in ([(run, None)] if route is None else route(run))
                for start in range(some.start, some.stop, most)
            ]
            if len(pieces) == 1:
                got = [self._fill(*pieces[0], stop)]
            else:
                with ThreadPoolExecutor(min(len(pieces), CONNECTIONS)) as pool:
                    tasks = [pool.submit(self._fill, *piece, stop) for piece in pieces]
                    try:
                        got = [task.result() for task in tasks]
                    except BaseException:
                        stop.set()  # what one of them meets ends the others, too
                        pool.shutdown(cancel_futures=True)
                        raise
            fetched = fetched or any(got)
            if not any(got):
                time.sleep(_LOOK_SECONDS)
        if fetched and self.have.complete:
            self.finish()

    def finish(self) -> None:
        """Compares a file of which all is here with the hub's SHA-256, and marks it as whole.
        ``CheckpointError`` for one that differs, of which nothing is kept."""
        everything = range(self.have.num_units)
        with self.have.claim(everything) as mine:
            # Whoever else is at it, does this too.
            if not mine or not self.have.path.exists() or not self.have.complete:
                return
            origin = self.have.origin
            if origin.sha256 and self._sha256() != origin.sha256:
                self.have.forget(everything)
                self._checked[:] = False
                raise DamagedFile(
                    f"{printable(self.path)} is not what {origin.repo} holds: its SHA-256 differs; "
                    "run again to fetch it anew"
                )
            mark, text = mark_of(self.path), json.dumps(asdict(origin), indent=1)
            with contextlib.suppress(OSError):  # it stays a file with a full table
                with whole_file(mark) as file:
                    file.write(f"{text}\n".encode())
                self.have.path.unlink()

    def _fill(self, units: range, source: Source | None, stop: threading.Event) -> bool:
        """Fetches units that are all missing, from their origin where another ``source`` fails;
        False where somebody else does."""
        with self.have.claim(units) as mine:
            if not mine:
                return False
            if source is not None:
                with contextlib.suppress(CheckpointError):
                    for run in self.have.missing(units):
                        self._fetch(run, source, stop)
            if missing := self.have.missing(units):
                self._check_interrupted()
                own = self._open_fetcher().fetch
                for run in missing:
                    self._fetch(run, own, stop)
        return True

    def _fetch(self, units: range, source: Source, stop: threading.Event) -> None:
        unit, wanted = self.have.unit, self.have.bytes(units)
        first, crcs, crc, position, synced = units.start, [], 0, wanted.start, wanted.start

        def keep() -> None:
            nonlocal first, crcs, synced
            if crcs:
                _sync(self._descriptor)
                self.have.record(first, crcs)
                self._checked[first : first + len(crcs)] = True
                first, crcs, synced = first + len(crcs), [], position

        try:
            for piece in source(wanted.start, wanted.stop):
                view = memoryview(piece)
                while view:
                    room = min((position // unit + 1) * unit, wanted.stop) - position
                    some, view = view[:room], view[room:]
                    self._pwrite(some, position)
                    crc = zlib.crc32(some, crc)
                    position += len(some)
                    if len(some) == room:
                        crcs.append(crc)
                        crc = 0
                if stop.is_set():
                    raise CheckpointError(f"{printable(self.path)}: fetching was ended")
                self._check_interrupted()
                with self._lock:
                    self.fetched_bytes += len(piece)
                    self.moved += len(piece)
                if position - synced >= _SYNC_BYTES:
                    keep()
        finally:
            keep()
        if position != wanted.stop:
            raise CheckpointError(
                f"{printable(self.path)}: {wanted.stop - position} bytes of a range did not come"
            )

    def _check_interrupted(self) -> None:
        if self.interrupted.is_set():
            raise CheckpointError(f"{printable(self.path)}: fetching was ended")

    def _open_fetcher(self) -> Fetcher:
        with self._lock:
            if self._fetcher is None:
                self._fetcher = self._make(self.have.origin)
            return self._fetcher

    # --- bytes on the disk ---

    def _check(self, units: range) -> list[range]:
        """Compares units with their checksums, once each; those that differ."""
        damaged = []
        most = max(1, _CHECK_BYTES // self.have.unit)
        left = units.start + np.flatnonzero(~self._checked[units.start : units.stop])
        if not len(left):
            return []
        for run in np.split(left, np.flatnonzero(np.diff(left) > 1) + 1):
            for start in range(int(run[0]), int(run[-1]) + 1, most):
                some = range(start, min(start + most, int(run[-1]) + 1))
                damaged += self._check_run(some)
        return damaged

    def _check_run(self, units: range) -> list[range]:
        where, unit = self.have.bytes(units), self.have.unit
        data = memoryview(bytearray(len(where)))
        self._pread(data, where.start)
        wrong = []
        for index, expected in enumerate(self.have.checksums(units)):
            if zlib.crc32(data[index * unit : (index + 1) * unit]) != expected:
                wrong.append(range(units.start + index, units.start + index + 1))
            else:
                self._checked[units.start + index] = True
        return wrong

    def _drop(self, units: range) -> None:
        with self.have.claim(units) as mine:
            if mine and self._check(units):
                self.have.forget(units)

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(min(_HASH_BYTES, max(1, self.size))))
        for start in range(0, self.size, len(buffer)):
            part = buffer[: min(len(buffer), self.size - start)]
            self._pread(part, start)
            digest.update(part)
            with self._lock:
                self.moved += len(part)
        return digest.hexdigest()

    def _pread(self, target: memoryview, offset: int) -> None:
        done = files.read_at(self._descriptor, self.path, target, offset, CheckpointError)
        if done < len(target):
            raise CheckpointError(f"{printable(self.path)} was cut while it was read; run again")

    def _pwrite(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise CheckpointError(
                f"{printable(self.path)} cannot be filled: {error.strerror}; "
                "`bandweave cache` shows what downloads take"
            ) from error


def _sync(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        getattr(os, "fdatasync", os.fsync)(descriptor)
