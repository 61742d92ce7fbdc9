"""Manifest: the content sums of a checkpoint that was found to be whole, in a file beside it.

Whoever loads from the folder compares with it. ``bandweave doctor --verify MODEL`` writes it. A
manifest speaks for files of one layout: where their headers are others it says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bandweave.checkpoints.gguf_model import is_gguf
from bandweave.checkpoints.source import CheckpointError
from bandweave.content.blocks import Content, TensorContent
from bandweave.files import is_there, parse_object, read_bytes
from bandweave.models.graph_op import SplitUnit
from bandweave.shown import printable
from bandweave.whole_file import whole_file

MANIFEST = "bandweave.manifest.json"
_VERSION = 1
_MOST_BYTES = 1 << 30


def manifest_path(model: Path) -> Path:
    """Of a folder in it, of a GGUF file beside it."""
    return model.with_name(f"{model.name}.{MANIFEST}") if is_gguf(model) else model / MANIFEST


def write_manifest(folder: Path, headers: str, content: Content, sha256: Mapping[str, str]) -> Path:
    """Writes what was found: ``headers`` of the folder's fingerprint, the sums of all blocks of
    its tensors, and the SHA-256 of its files by name. ``OSError`` where it cannot be written."""
    tensors = {
        name: {
            "columns": one.unit.columns,
            "size": one.unit.size,
            "sums": one.sums.astype(">u8").tobytes().hex(),
        }
        for name, one in sorted(content.tensors.items())
    }
    value = {
        "bandweave_manifest": _VERSION,
        "headers": headers,
        "sha256": dict(sorted(sha256.items())),
        "tensors": tensors,
    }
    path = manifest_path(folder)
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")
    return path


def read_manifest(folder: Path, headers: str) -> Content | None:
    """The sums in a folder's manifest; None where it has none for files with these headers.
    ``CheckpointError`` for one that cannot be read."""
    path = manifest_path(folder)
    if not is_there(path):
        return None
    remedy = f"; write it again with `bandweave doctor --verify {printable(folder)}`"
    data = read_bytes(path, most=_MOST_BYTES, error=CheckpointError)
    value = parse_object(data, printable(path), CheckpointError, remedy)
    try:
        if value["bandweave_manifest"] != _VERSION or value["headers"] != headers:
            return None
        return Content({str(name): _tensor(one) for name, one in value["tensors"].items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{printable(path)} is damaged{remedy}") from error


def _tensor(value: Mapping[str, Any]) -> TensorContent:
    sums = np.frombuffer(bytes.fromhex(value["sums"]), ">u8").astype(np.uint64)
    columns, size = value["columns"], value["size"]
    if not isinstance(columns, bool) or not isinstance(size, int) or size < 1 or not len(sums):
        raise ValueError("no unit")
    unit = SplitUnit(columns=columns, size=size)
    return TensorContent(unit=unit, sums=sums, known=np.ones(len(sums), np.bool_))
