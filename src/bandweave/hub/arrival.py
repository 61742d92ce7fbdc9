"""Arrival: makes the folder of a model of the hub: small files whole, weights ready to be filled.

What another program has downloaded already (the hub's own cache) is linked, what another commit's
folder has is shared, and only the rest is asked for. Any number of processes may do this at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bandweave.checkpoints import layout
from bandweave.checkpoints.have import Have, Origin, make_partial, sidecar_of
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.hub.listing import Listing, RemoteFile
from bandweave.hub.range_fetcher import RangeFetcher
from bandweave.hub.refusals import HubError
from bandweave.hub.selection import Selection
from bandweave.hub.service import Service
from bandweave.hub.store import Record, Store, write_record
from bandweave.shown import printable
from bandweave.whole_file import whole_file

KIND = "hub"
_AT_ONCE = 8


def arrive(
    hub: Service, store: Store, listing: Listing, selection: Selection
) -> tuple[Path, Selection]:
    """The folder, made or completed, and what was selected as its index has it. ``HubError`` and
    ``OSError`` where that cannot be."""
    folder = store.folder(listing.repo, listing.commit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tasks = [pool.submit(_bring, hub, folder, listing, one) for one in selection.small]
            for task in tasks:
                task.result()
        selection = _as_indexed(folder, listing, selection)
        for file in selection.weights:
            _place(hub, store, folder, listing, file)
        write_record(
            folder,
            Record(
                endpoint=hub.endpoint,
                repo=listing.repo,
                commit=listing.commit,
                starts=(selection.start,),
            ),
        )
    except OSError as error:
        raise HubError(
            f"{printable(folder)} cannot be written: {error.strerror}; set BANDWEAVE_DOWNLOADS to "
            "a folder with room"
        ) from error
    _read_headers(folder, selection)
    return folder, selection


def _as_indexed(folder: Path, listing: Listing, selection: Selection) -> Selection:
    """With the weight files that the model's index names: a repository may hold others."""
    index = folder / layout.INDEX
    if selection.start or layout.SINGLE in listing.files or not index.is_file():
        return selection
    names = layout.indexed_files(folder)
    missing = [name for name in names if name not in listing.files]
    if missing:
        raise HubError(
            f"{listing.repo} lacks {len(missing)} of the {len(names)} weight files that its index "
            f"names, the first is {printable(missing[0])}; choose another revision or model"
        )
    return replace(selection, weights=tuple(listing.files[name] for name in names))


def _bring(hub: Service, folder: Path, listing: Listing, file: RemoteFile) -> None:
    """A small file, whole."""
    path = folder / file.path
    if path.is_file() and path.stat().st_size == file.size:
        return
    if _link(path, _cached(listing, file)):
        return
    if file.large:  # as many a tokenizer is
        fetcher = RangeFetcher(hub, _origin(hub, listing, file))
        content = b"".join(fetcher.fetch(0, file.size))
    else:
        subject = hub.subject(listing.repo, listing.commit, file.path)
        content = hub.ask(hub.file_url(subject), subject, most=max(1, 2 * file.size))
    if len(content) != file.size or (file.etag and _digest(file, content) != file.etag):
        raise HubError(
            f"{listing.repo}/{file.path} came damaged ({len(content)} of {file.size} bytes); try "
            "again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as opened:
        opened.write(content)


def _place(hub: Service, store: Store, folder: Path, listing: Listing, file: RemoteFile) -> None:
    """A weight file, or the frame of one."""
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if sidecar_of(path).exists():
        if _fits(path, file):
            make_partial(path, _origin(hub, listing, file))  # the file, if it was not made yet
            return
        path.unlink(missing_ok=True)
        sidecar_of(path).unlink(missing_ok=True)
    elif path.is_file() and path.stat().st_size == file.size:
        return
    if _link(path, _cached(listing, file)):
        return
    for other in store.commits(listing.repo):
        if other != folder and _share(other / file.path, path, file):
            return
    path.unlink(missing_ok=True)
    make_partial(path, _origin(hub, listing, file))


def _origin(hub: Service, listing: Listing, file: RemoteFile) -> Origin:
    return Origin(
        kind=KIND,
        endpoint=hub.endpoint,
        repo=listing.repo,
        commit=listing.commit,
        path=file.path,
        etag=file.etag or f"{listing.commit}/{file.path}",
        size=file.size,
    )


def _fits(path: Path, file: RemoteFile) -> bool:
    """Whether what was begun here is this file."""
    try:
        have = Have.open(sidecar_of(path))
    except (CheckpointError, FileNotFoundError):
        return False
    try:
        return have.origin.size == file.size and have.origin.etag == (file.etag or have.origin.etag)
    finally:
        have.close()


def _share(other: Path, path: Path, file: RemoteFile) -> bool:
    """Lets a folder have the same file as another commit's, with the same table: commits that
    change a page of text are many, and weights stay what they are."""
    if not file.large or not other.is_file() or not _fits(other, file):
        return False
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        os.link(sidecar_of(other), sidecar_of(path))
        os.link(other, path)
        return True
    sidecar_of(path).unlink(missing_ok=True)
    return False


def _link(path: Path, cached: Path | None) -> bool:
    if cached is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    partial.symlink_to(cached)
    partial.rename(path)
    return True


def _cached(listing: Listing, file: RemoteFile) -> Path | None:
    """A whole file in the cache of the hub's own programs."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(listing.repo, file.path, revision=listing.commit)
    folder = "--".join(["models", *listing.repo.split("/")])
    blob = Path(constants.HF_HUB_CACHE) / folder / "blobs" / (file.etag or "none")
    for path in ([Path(found)] if isinstance(found, str) else []) + [blob]:
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size == file.size:
                return path.resolve()
    return None


def _digest(file: RemoteFile, content: bytes) -> str:
    if file.large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _read_headers(folder: Path, selection: Selection) -> None:
    """Fetches the headers of all files at once: one after the other they take a minute."""
    names = [file.path for file in selection.weights if file.path.endswith(".safetensors")]
    paths = [folder / name for name in names if sidecar_of(folder / name).exists()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for task in [pool.submit(_read_header, path) for path in paths]:
            task.result()


def _read_header(path: Path) -> None:
    SafetensorsFile.open(path).close()
