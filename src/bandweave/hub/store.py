"""Store: where models of the hub lie on this machine, and what lies there.

``<store>/<org>--<name>/<commit>/`` holds the files of one commit, as far as they were wanted: small
ones whole, weights with a table beside them of what has been fetched. ``refs/`` beside the commits
says which one a branch was last. Deletes nothing but folders that it has marked. Asks nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from bandweave import files
from bandweave.checkpoints.have import SUFFIX, WHOLE_SUFFIX, Have
from bandweave.checkpoints.source import CheckpointError
from bandweave.hub.names import HubName
from bandweave.hub.refusals import HubError
from bandweave.shown import printable
from bandweave.whole_file import whole_file

RECORD = "bandweave.hub.json"
_MOST_RECORD_BYTES = 1_000_000
_FOLDER = re.compile(r"(?P<org>[^-].*?)--(?P<name>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a commit's folder was made for. ``starts``: the files to open of the models in it, the
    empty one for the folder itself."""

    endpoint: str
    repo: str
    commit: str
    starts: tuple[str, ...]

    def name(self, start: str = "") -> HubName:
        """By which another machine finds the same files."""
        return HubName(repo=self.repo, revision=self.commit, file=start)


@dataclass(frozen=True, kw_only=True)
class Download:
    """A commit's folder: bytes of its files, how many of them are here, and how many of those are
    links to another program's; ``whole``: whether none is missing."""

    record: Record
    path: Path
    num_bytes: int
    here_bytes: int
    linked_bytes: int
    used_at: float  # seconds since the epoch

    @property
    def whole(self) -> bool:
        return self.here_bytes == self.num_bytes


class Store:
    """``path`` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, repo: str, commit: str) -> Path:
        """Where the files of a commit lie, or would."""
        return self._of(repo) / commit

    def known_commit(self, name: HubName) -> str:
        """What a revision was when the hub was last asked; empty where nobody knows."""
        if name.is_commit:
            return name.revision
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = self._ref(name).read_text(encoding="ascii").strip()
            return text if _COMMIT.fullmatch(text) else ""
        return ""

    def remember(self, name: HubName, commit: str) -> None:
        """What a revision is now."""
        if name.is_commit:
            return
        ref = self._ref(name)
        with contextlib.suppress(OSError):
            ref.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(ref) as file:
                file.write(f"{commit}\n".encode())

    def commits(self, repo: str) -> Iterator[Path]:
        """The folders that there are of a repository, the newest first."""
        with contextlib.suppress(OSError):
            found = [path for path in self._of(repo).iterdir() if _COMMIT.fullmatch(path.name)]
            yield from sorted(found, key=lambda path: -path.stat().st_mtime)

    def downloads(self) -> list[Download]:
        """All that is here, by name."""
        found = []
        with contextlib.suppress(OSError):
            for folder in sorted(self.path.iterdir()):
                if match := _FOLDER.fullmatch(folder.name):
                    repo = f"{match['org']}/{match['name']}"
                    found += [one for path in self.commits(repo) if (one := _download(path))]
        return found

    def remove(self, download: Download) -> int:
        """Deletes a folder; the bytes that this freed. ``OSError`` where it cannot be deleted."""
        own = download.here_bytes - download.linked_bytes
        shutil.rmtree(download.path)
        repo = self._of(download.record.repo)
        if not any(self.commits(download.record.repo)):
            shutil.rmtree(repo / "refs", ignore_errors=True)
            with contextlib.suppress(OSError):
                repo.rmdir()
        return own

    def _of(self, repo: str) -> Path:
        org, _, name = repo.partition("/")
        return self.path / f"{org}--{name}"

    def _ref(self, name: HubName) -> Path:
        return self._of(name.repo) / "refs" / quote(name.revision or "main", safe="")


def read_record(folder: Path) -> Record | None:
    """What a folder says of where its files came from; None where it is no download."""
    path = folder / RECORD
    if not files.is_there(path):
        return None
    try:
        value, _ = files.read_json(path, most=_MOST_RECORD_BYTES, error=CheckpointError)
        texts = {name: value[name] for name in ("endpoint", "repo", "commit")}
        starts = value["starts"]
    except (CheckpointError, KeyError):
        return None
    strings = [*texts.values(), *starts] if isinstance(starts, list) else [None]
    if not all(isinstance(text, str) for text in strings):
        return None
    return Record(starts=tuple(starts), **texts)


def write_record(folder: Path, record: Record) -> None:
    """Marks a folder as a download, beside what it was made for before. ``OSError`` where it cannot
    be written; one that is marked so need not be, on a disk that is full or read only."""
    before = read_record(folder)
    starts = sorted({*record.starts, *(before.starts if before else ())})
    after = replace(record, starts=tuple(starts))
    if after == before:
        return
    value = {"endpoint": after.endpoint, "repo": after.repo, "commit": after.commit,
             "starts": starts}  # fmt: skip
    with whole_file(folder / RECORD) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")


def record_of(path: Path) -> tuple[Record, str] | None:
    """Where a model's folder or file came from, and its start; None where it is no download."""
    path = Path(os.path.abspath(path))
    folders = [path] if path.is_dir() else list(path.parents)[:4]
    for folder in folders:
        if (record := read_record(folder)) is not None:
            start = "" if path == folder else path.relative_to(folder).as_posix()
            return record, start
    return None


def hub_name(path: Path) -> str:
    """What the hub calls the model that lies at ``path``, with its commit; empty where it is none
    of the hub's."""
    found = record_of(path)
    return "" if found is None else str(found[0].name(found[1]))


def check_store(path: Path | None) -> Store:
    """The store at a path. ``HubError`` where there can be none."""
    if path is None:
        raise HubError("there is no home folder for downloads; set BANDWEAVE_DOWNLOADS to a folder")
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:
        raise HubError(
            f"downloads cannot lie in {printable(path)}: {error.strerror}; set BANDWEAVE_DOWNLOADS "
            "to a folder"
        ) from error
    if is_file:
        raise HubError(
            f"downloads cannot lie in {printable(path)}, which is a file; set BANDWEAVE_DOWNLOADS "
            "to a folder"
        )
    return Store(path)


def _download(folder: Path) -> Download | None:
    record = read_record(folder)
    if record is None:
        return None
    total = here = linked = 0
    used = 0.0
    for path in folder.rglob("*"):
        name = path.name
        if name == RECORD or name.endswith((SUFFIX, WHOLE_SUFFIX, ".partial")):
            continue
        try:
            status = path.stat()
        except OSError:  # a link to what has gone
            continue
        if path.is_dir():
            continue
        used = max(used, status.st_mtime)
        total += status.st_size
        held = _held_bytes(path, status.st_size)
        here += held
        linked += held if path.is_symlink() else 0
    return Download(
        record=record,
        path=folder,
        num_bytes=total,
        here_bytes=here,
        linked_bytes=linked,
        used_at=used,
    )


def _held_bytes(path: Path, size: int) -> int:
    sidecar = path.with_name(path.name + SUFFIX)
    if not sidecar.exists():
        return size
    try:
        have = Have.open(sidecar)
    except (CheckpointError, FileNotFoundError):
        return 0
    try:
        return have.held_bytes
    finally:
        have.close()
