"""Makes the folder of a model that another machine has: small files whole, weights ready to be
filled from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandweave.checkpoints.fetching import PEER
from bandweave.checkpoints.folder import Fingerprint
from bandweave.checkpoints.have import (
    SUFFIX,
    WHOLE_SUFFIX,
    Origin,
    make_partial,
    sidecar_of,
)
from bandweave.environment import read_environment
from bandweave.hub.store import Record, check_store, read_record, write_record
from bandweave.sharing.peer import Peer, PeerError
from bandweave.sharing.server import is_small
from bandweave.whole_file import whole_file

OWNER = "copies"  # in the place of an organisation of the hub
_MOST_SMALL = 256_000_000
_LISTING_SECONDS = 5.0
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)  # a folder is named by it: nothing else will do


def copy_folder(peer: Peer, model: str, fingerprint: Fingerprint) -> Path:
    """The folder, or the GGUF file in it; ``PeerError`` where the peer has none of this model, and
    ``OSError`` where there is no room. ``model``: its path there, for a name."""
    listing = peer.listing(_LISTING_SECONDS)
    headers = listing.get("headers")
    if not isinstance(headers, str) or not _DIGEST.fullmatch(headers):
        headers = ""
    if listing.get("config") != fingerprint.config or not headers:
        raise PeerError(f"{peer.name} has no weights of {model}")
    repo = f"{OWNER}/{_plain(Path(model).name)}"
    folder = check_store(read_environment().downloads).folder(repo, headers[:40])
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in _sizes(listing, "small", _MOST_SMALL).items():
        path = folder / name
        if path.is_file() and path.stat().st_size == size:
            continue
        with whole_file(path) as file:
            file.writelines(peer.fetch(name, 0, size))
    weights = _sizes(listing, "weights", 1 << 50)
    for name, size in weights.items():
        path = folder / name
        if sidecar_of(path).exists() or not (path.is_file() and path.stat().st_size == size):
            make_partial(path, Origin(kind=PEER, endpoint=peer.name, repo=repo, size=size,
                                      commit=headers[:40], path=name,
                                      etag=f"{headers}/{name}"))  # fmt: skip
    start = listing.get("start")
    start = start if isinstance(start, str) and start in weights else ""
    write_record(
        folder, Record(endpoint=peer.name, repo=repo, commit=headers[:40], starts=(start,))
    )
    return folder / start if start else folder


def known_copy(model: str, fingerprint: Fingerprint) -> Path | None:
    """The folder or file where a copy was begun, or lies whole."""
    downloads = read_environment().downloads
    if downloads is None or not _DIGEST.fullmatch(fingerprint.headers):
        return None
    repo = f"{OWNER}/{_plain(Path(model).name)}"
    folder = check_store(downloads).folder(repo, fingerprint.headers[:40])
    record = read_record(folder)
    return None if record is None else folder / record.starts[0]


def _sizes(listing: Mapping[str, Any], kind: str, most: int) -> dict[str, int]:
    """Names that are names, and sizes that are sizes."""
    given = listing.get(kind)
    found: dict[str, int] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        size = value[0] if isinstance(value, list) and value else value
        if not _is_name(name) or is_small(name) != (kind == "small") or type(size) is not int:
            raise PeerError("the other machine names a file that is none")
        if not 0 <= size <= most:
            raise PeerError(f"the other machine names a file of {size} bytes")
        found[name] = size
    return found


def _is_name(name: object) -> bool:
    """Of a file in a model's folder, and not of one that bandweave keeps its own accounts in."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 255:
        return False
    own = name.startswith((".", "bandweave.")) or name.endswith((SUFFIX, WHOLE_SUFFIX, ".partial"))
    return not own and "/" not in name and "\\" not in name


def _plain(name: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return kept.lstrip("._-")[:80] or "model"
