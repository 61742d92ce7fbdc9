"""Finds a node's own copy of a model by the fingerprint of the controller's. Knows paths only."""

from __future__ import annotations

import glob
import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bandweave.checkpoints import layout
from bandweave.checkpoints.folder import Fingerprint, Folder
from bandweave.checkpoints.gguf_model import is_gguf
from bandweave.checkpoints.source import CheckpointError
from bandweave.sharing.peer import Peer, PeerError


def find_model(
    model: str,
    fingerprint: Fingerprint,
    roots: Sequence[Path],
    log: Callable[[str], None] = lambda sentence: None,
    *,
    hub: str = "",
    source: Peer | None = None,
) -> Folder:
    """This node's own copy of a model, open: the controller's path, a folder or a GGUF file under
    the roots, what ``hub`` names at the hub, or one that is begun now with what ``source`` gives;
    the weights of the last two come as they are read.

    A folder that cannot be read or believed is passed over, and the log told. ``CheckpointError``
    where no copy is left, and what is wrong with the one that has the model's name.
    """
    given = Path(model)
    different: Path | None = None
    damaged: Exception | None = None
    for path in _candidates(given, roots, log):
        try:
            if not (path.is_file() if is_gguf(path) else (path / layout.CONFIG).is_file()):
                continue
            copy = _open_copy(path, fingerprint)
            if copy is not None:
                return copy
            different = path if path.name == given.name else different
        except Exception as error:  # whatever is wrong with a folder is no reason to miss the next
            log(f"passes over {path}: {error}")
            if path.name == given.name and damaged is None:
                damaged = error
    if damaged is not None:
        raise CheckpointError(str(damaged)) from damaged
    host = socket.gethostname()
    if different is not None:  # somebody put it there, so nothing is put beside it
        raise CheckpointError(
            f"{different} on {host} is not the same checkpoint as the controller's "
            f"{model}; copy the same files there"
        )
    try:
        if hub and (copy := _from_hub(hub, fingerprint, log)) is not None:
            return copy
    except CheckpointError:
        if (copy := _from_peer(model, fingerprint, source, log)) is not None:
            return copy
        raise
    if (copy := _from_peer(model, fingerprint, source, log)) is not None:
        return copy
    raise CheckpointError(
        f"{host} has no copy of {model}; put one at the same path, or start its worker "
        "with --models FOLDER"
    )


def _from_hub(hub: str, fingerprint: Fingerprint, log: Callable[[str], None]) -> Folder | None:
    """The folder of a model of the hub on this machine; None where it is another model. Errors are
    the hub's."""
    # Nodes that have a copy start sooner without it.
    from bandweave.hub.names import parse_name
    from bandweave.hub.resolve import fetch_folder

    name = parse_name(hub)
    if name is None:
        return None
    return _open_copy(fetch_folder(name, log), fingerprint)


def _from_peer(
    model: str, fingerprint: Fingerprint, source: Peer | None, log: Callable[[str], None]
) -> Folder | None:
    """A copy of what another machine of the session has; None where it has nothing."""
    if source is None:
        return None
    from bandweave.sharing.copy import copy_folder, known_copy

    try:
        path = copy_folder(source, model, fingerprint)
    except (PeerError, OSError) as error:
        log(f"gets no copy of {model}: {error}")
        path = known_copy(model, fingerprint)
    return None if path is None else _open_copy(path, fingerprint)


def _open_copy(path: Path, fingerprint: Fingerprint) -> Folder | None:
    """The copy at a path, if it is one. Reads no more than it takes to tell: of another model's
    folder the config alone."""
    if not is_gguf(path):
        config = layout.read_json(layout.require_config(path))[1]
        if hashlib.sha256(config).hexdigest() != fingerprint.config:
            return None
    folder = Folder.open(path)
    try:
        fits = folder.layout_fingerprint().fits(fingerprint)
        if fits and (not fingerprint.sample or folder.fingerprint().fits(fingerprint)):
            return folder
    except BaseException:
        folder.close()
        raise
    folder.close()
    return None


def _candidates(given: Path, roots: Sequence[Path], log: Callable[[str], None]) -> Iterator[Path]:
    """The controller's path, then the roots and what is directly below them, the model's namesake
    first: another may hold the same layout. A GGUF file may lie in a folder there, too."""
    yield given
    if is_gguf(given):
        for root in roots:
            yield from (root / given.name, *sorted(root.glob(f"*/{glob.escape(given.name)}")))
        return
    for root in roots:
        inside = []
        try:
            inside = list(root.iterdir())
        except OSError as error:
            log(f"passes over {root}: {error}")
        yield from sorted([root, *inside], key=lambda path: (path.name != given.name, path))
