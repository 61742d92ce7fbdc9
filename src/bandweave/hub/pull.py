"""Pull: brings all of a model of the hub here and checks it, file by file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bandweave.checkpoints.have import mark_of, sidecar_of
from bandweave.checkpoints.partial_file import DamagedFile, PartialFile
from bandweave.environment import read_environment
from bandweave.hub.arrival import arrive
from bandweave.hub.names import HubName
from bandweave.hub.resolve import find
from bandweave.hub.service import service
from bandweave.hub.store import check_store

OnProgress = Callable[[int, int], None]  # bytes that are here, and in all
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A model that is here. ``path``: what to open; ``num_bytes`` of all its files, of which
    ``fetched_bytes`` came now; ``checked``: files whose SHA-256 is the hub's, ``unchecked``: those
    that another program had downloaded, or for which the hub gives none."""

    repo: str
    commit: str
    path: Path
    num_bytes: int
    fetched_bytes: int
    seconds: float
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


def pull(name: HubName, on_progress: OnProgress = lambda done, total: None) -> Pulled:
    """Fetches what is missing and compares every file with the hub's SHA-256. Interrupted, it goes
    on where it was. ``HubError`` where something cannot be had, or comes damaged twice."""
    started = time.monotonic()
    store = check_store(read_environment().downloads)
    listing, selection, found = find(name)
    folder, selection = arrive(service(), store, listing, selection)
    store.remember(found, listing.commit)
    store.remember(name, listing.commit)
    total = selection.num_bytes
    done = sum(file.size for file in selection.small)
    fetched, checked, unchecked = 0, [], []
    for file in selection.weights:
        path = folder / file.path
        before = done
        fetched += _complete(path, lambda here, before=before: on_progress(before + here, total))
        done += file.size
        on_progress(done, total)
        (checked if file.large and mark_of(path).exists() else unchecked).append(file.path)
    return Pulled(
        repo=listing.repo,
        commit=listing.commit,
        path=folder / selection.start if selection.start else folder,
        num_bytes=total,
        fetched_bytes=fetched,
        seconds=time.monotonic() - started,
        checked=tuple(checked),
        unchecked=tuple(unchecked),
    )


def _complete(path: Path, on_progress: Callable[[int], None]) -> int:
    """The bytes that were fetched until a file was whole."""
    fetched, tries = 0, 2  # what came damaged once may come sound
    while sidecar_of(path).exists():
        try:
            file = PartialFile.open(path)
        except FileNotFoundError:  # another process was faster
            break
        try:
            with _told(file, on_progress):
                file.ensure(range(file.have.num_units))
                file.finish()
            if sidecar_of(path).exists():  # another process compares it with its digest
                time.sleep(_LOOK_SECONDS)
        except DamagedFile:
            tries -= 1
            if not tries:
                raise
        finally:
            fetched += file.fetched_bytes
            file.close()
    return fetched


@contextmanager
def _told(file: PartialFile, on_progress: Callable[[int], None]) -> Iterator[None]:
    """Says now and then how much of a file is here."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_LOOK_SECONDS):
            on_progress(file.have.held_bytes)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
