"""Verification: reads a whole checkpoint once and compares it with what is known of it.

Known may be a manifest beside it, and the SHA-256 of files that a model hub gave when they were
downloaded. Knows one folder; writes nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandweave.checkpoints.folder import Folder
from bandweave.content.blocks import Content, sum_rows
from bandweave.content.manifest import read_manifest
from bandweave.files import read_bytes
from bandweave.models.graph_op import WeightSpec
from bandweave.models.registry import build_graph
from bandweave.ranges import Range

_PIECE_BYTES = 8 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

OnProgress = Callable[[int, int], None]  # bytes read so far, and in all


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that is not as it is known to be; ``tensor`` as it is called there, empty for a
    whole file; ``against``: who says so."""

    file: str
    tensor: str
    against: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What reading everything showed. ``sha256`` of each weight file, ``hub`` those that a hub
    promised; ``manifest_blocks`` blocks were compared with a manifest, of all ``blocks``."""

    content: Content
    headers: str
    bytes: int
    sha256: Mapping[str, str]
    hub: Mapping[str, str]
    blocks: int
    manifest_blocks: int
    damage: tuple[Damage, ...]


def verify_checkpoint(folder: Folder, on_progress: OnProgress) -> Verification:
    """Reads every weight file of a folder. ``CheckpointError`` where it cannot be read."""
    headers = folder.layout_fingerprint().headers
    manifest = read_manifest(folder.path, headers)
    content, done, total = Content(), 0, folder.file_bytes + folder.stored_bytes
    sha256: dict[str, str] = {}
    damage: list[Damage] = []
    hub = {name: promised for name in folder.files if (promised := _promised(folder.path / name))}
    compared = 0
    weights: dict[str, list[WeightSpec]] = defaultdict(list)
    further = folder.spec.further is not None
    for weight in build_graph(folder.spec, further=further).weights():
        weights[folder.file_name(weight.name)].append(weight)
    with ThreadPoolExecutor(1) as pool:
        for name in folder.files:
            digest = pool.submit(_sha256, folder, name)
            for tensor in _contents(folder, weights[name]):
                content.learn(*tensor)
                done += folder.tensor_bytes(tensor[0])
                on_progress(done, total)
            sha256[name] = digest.result()
            done += folder.files[name]
            on_progress(done, total)
            if name in hub and hub[name] != sha256[name]:
                damage.append(Damage(file=name, tensor="", against="the model hub"))
    for name, one in content.tensors.items():
        known = None if manifest is None else manifest.tensors.get(name)
        if known is None or known.unit != one.unit or len(known.sums) != len(one.sums):
            continue
        compared += len(one.sums)
        if not np.array_equal(known.sums, one.sums):
            file, stored = folder.file_name(name), folder.stored_name(name)
            damage.append(Damage(file=file, tensor=stored, against="the manifest"))
    return Verification(
        content=content,
        headers=headers,
        bytes=folder.file_bytes,
        sha256=sha256,
        hub=hub,
        blocks=sum(len(one.sums) for one in content.tensors.values()),
        manifest_blocks=compared,
        damage=tuple(damage),
    )


def _contents(folder: Folder, weights: Sequence[WeightSpec]) -> Iterator[tuple]:
    """What ``Content.learn`` takes of every tensor."""
    for weight in weights:
        unit, shape = weight.unit, folder.shape(weight.name)
        first, sums = sum_rows(folder, weight.name, Range(start=0, stop=shape[0]), unit)
        yield weight.name, unit, shape, first, sums


def _sha256(folder: Folder, name: str) -> str:
    digest, buffer = hashlib.sha256(), bytearray(_PIECE_BYTES)
    size = folder.files[name]
    for start in range(0, size, _PIECE_BYTES):
        view = memoryview(buffer)[: min(_PIECE_BYTES, size - start)]
        folder.read_bytes(name, view, start)
        digest.update(view)
    return digest.hexdigest()


def _promised(file: Path) -> str:
    """The SHA-256 that the hub's own tools noted when they downloaded a file: the name of the blob
    that it is a link to, or the second line of a note beside it. Empty where there is none."""
    blob = file.resolve()
    if file.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name
    note = file.parent / ".cache" / "huggingface" / "download" / f"{file.name}.metadata"
    try:
        lines = read_bytes(note, most=4096, error=ValueError).decode("ascii", "replace").split()
    except ValueError:  # there is none, or it is something else
        return ""
    return lines[1] if len(lines) > 1 and _SHA256.fullmatch(lines[1]) else ""
