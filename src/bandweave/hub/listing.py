"""Listing: what a revision of a repository holds: its commit, and every file with size and digest.

Everything that the hub says is checked before it becomes a name of a file here. Knows no formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bandweave.hub.names import HubName
from bandweave.hub.refusals import HubError
from bandweave.hub.service import Service
from bandweave.shown import shown

MAIN = "main"
_MOST_BYTES = 64_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """``etag``: SHA-256 of a large file, the SHA-1 that git has of a small one; empty where the hub
    does not say."""

    path: str
    size: int
    etag: str

    @property
    def large(self) -> bool:
        """Whether the hub keeps it outside of git."""
        return len(self.etag) == 64


@dataclass(frozen=True, kw_only=True)
class Listing:
    """``repo``: as the hub spells it; ``files`` by their paths."""

    repo: str
    commit: str
    files: Mapping[str, RemoteFile]


def list_files(hub: Service, name: HubName) -> Listing:
    """Asks the hub. ``HubError`` says what is wrong with the name, the account or the network."""
    revision = name.revision or MAIN
    subject = hub.subject(name.repo, revision)
    url = f"{hub.endpoint}/api/models/{name.repo}/revision/{quote(revision, safe='')}?blobs=true"
    value = hub.ask_json(url, subject, most=_MOST_BYTES)
    commit, siblings = value.get("sha"), value.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _strange(hub, f"the commit {shown(commit)}")
    if not isinstance(siblings, list):
        raise _strange(hub, "no list of files")
    files = [file for one in siblings if (file := _file(hub, one)) is not None]
    return Listing(repo=name.repo, commit=commit, files={file.path: file for file in files})


def _file(hub: Service, value: Any) -> RemoteFile | None:
    if not isinstance(value, dict):
        raise _strange(hub, f"the file {shown(value)}")
    path, size, etag = value.get("rfilename"), value.get("size"), value.get("blobId")
    stored = value.get("lfs")
    if isinstance(stored, dict):
        size, etag = stored.get("size", size), stored.get("sha256", etag)
    if not isinstance(path, str) or not _is_plain(path):
        return None  # nothing of a model has such a name
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise _strange(hub, f"the size {shown(size)} of {shown(path)}")
    if not isinstance(etag, str) or not _DIGEST.fullmatch(etag):
        etag = ""
    return RemoteFile(path=path, size=size, etag=etag)


def _is_plain(path: str) -> bool:
    """Whether a path stays in the folder that it is put into, on any system."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and ":" not in path
        and len(path) < 512
        and all(part not in ("", ".", "..") and not part.startswith(".") for part in parts)
    )


def _strange(hub: Service, what: str) -> HubError:
    return HubError(f"{hub.endpoint} gives {what}; is HF_ENDPOINT a hub?")
