"""Finds a node's own copy of a model by the fingerprint of the controller's. Knows folders only."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError


def find_model(model: str, fingerprint: str, roots: Sequence[Path]) -> Path:
    """This node's own copy of a model: the controller's path, or a folder under the roots."""
    given = Path(model)
    candidates = [given]
    for root in roots:
        if root.is_dir():
            inside = [path for path in root.iterdir() if path.is_dir()]
            # Its namesake first: another may hold the same layout.
            candidates += sorted([root, *inside], key=lambda path: (path.name != given.name, path))
    different: Path | None = None
    damaged: CheckpointError | None = None
    for path in candidates:
        if not (path / "config.json").is_file():
            continue
        try:
            with Folder.open(path) as folder:
                if folder.fingerprint() == fingerprint:
                    return path
        except CheckpointError as error:
            if path.name == given.name and damaged is None:
                damaged = error
            continue
        different = path if path.name == given.name else different
    if damaged is not None:
        raise damaged
    host = socket.gethostname()
    if different is not None:
        raise CheckpointError(
            f"{different} on {host} is not the same checkpoint as the controller's "
            f"{model}; copy the same files there"
        )
    raise CheckpointError(
        f"{host} has no copy of {model}; put one at the same path, or start its worker "
        "with --models FOLDER"
    )
