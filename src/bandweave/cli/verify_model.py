"""``bandweave doctor --verify MODEL``: is every byte of a checkpoint what it must be?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.cli import output
from bandweave.content.manifest import MANIFEST, write_manifest
from bandweave.content.verification import Verification, verify_checkpoint
from bandweave.hub.resolve import resolve_model


def verify_model(model: str, lacks: list[dict[str, Any]]) -> dict[str, Any]:
    """Reads all of a model; writes its manifest where nothing was found to be wrong. What is wrong
    is added to ``lacks``."""
    with Folder.open(resolve_model(model)) as folder:
        with _bar(model) as on_progress:
            found = verify_checkpoint(folder, on_progress)
        written = None
        if found.damage:
            _complain(folder, found, lacks)
        else:
            try:
                written = write_manifest(folder.path, found.headers, found.content, found.sha256)
            except OSError as error:
                what = f"the manifest of {model} cannot be written: {error.strerror}"
                mend = f"make {folder.path} writable, or do without"
                lacks.append({"what": what, "mend": mend, "fatal": False})
        return {
            "path": str(folder.path),
            "bytes": found.bytes,
            "files": [
                {"name": name, "sha256": digest, "hub_sha256": found.hub.get(name)}
                for name, digest in found.sha256.items()
            ],
            "blocks": found.blocks,
            "blocks_compared_with_manifest": found.manifest_blocks,
            "damaged": [vars(one) for one in found.damage],
            "manifest": None if written is None else str(written),
        }


def model_words(model: dict[str, Any]) -> str:
    """What was found, in a sentence."""
    files = model["files"]
    hub = sum(file["hub_sha256"] is not None for file in files)
    known = []
    if hub:
        known.append(f"{hub} of {output.count(len(files), 'file')} with the hub's hashes")
    if model["blocks_compared_with_manifest"]:
        known.append(f"all blocks with {MANIFEST}")
    with_what = f"compared {' and '.join(known)}" if known else "nothing here to compare it with"
    result = "DAMAGED" if model["damaged"] else "sound, as far as that tells"
    if not known:
        result = "no judgement"
    note = f"; wrote {MANIFEST}" if model["manifest"] else ""
    return f"{model['path']}: read {output.size(model['bytes'])}, {with_what}: {result}{note}"


def _complain(folder: Folder, found: Verification, lacks: list[dict[str, Any]]) -> None:
    for one in found.damage:
        what = f"{folder.path / one.file} is not what {one.against} says"
        if one.tensor:
            what += f": its tensor {one.tensor} differs"
        mend = "download the file again"
        if one.against == "the manifest":
            mend += f"; or, where it was changed on purpose, delete {MANIFEST} beside it"
        lacks.append({"what": what, "mend": mend, "fatal": False})


@contextlib.contextmanager
def _bar(model: str) -> Iterator[Callable[[int, int], None]]:
    if not output.is_terminal():
        yield lambda done, total: None
        return
    from bandweave.cli.progress import loading_bar

    with loading_bar(f"reading {model}") as bar:
        yield bar.update
