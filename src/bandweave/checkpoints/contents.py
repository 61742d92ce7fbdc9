"""Contents: what was found where a checkpoint lies, whatever holds it: a folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bandweave.checkpoints.headed_file import HeadedFile
from bandweave.checkpoints.view import View
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import Names


@dataclass(frozen=True, kw_only=True)
class Contents:
    """``config``: the fields of a config.json, and ``config_bytes`` what tells it from others.
    ``files`` and ``tensors`` by name, none where there is the config alone; ``names`` of stored
    tensors. ``metadata`` gives a GGUF file's, with arrays in full; ``fields`` are the same, but of
    long arrays their lengths. ``remarks``: sentences on what
    files leave out and how that was taken."""

    spec: ModelSpec
    config: Mapping[str, Any]
    config_bytes: bytes
    files: Mapping[str, HeadedFile]
    tensors: Mapping[str, View]
    names: Names
    metadata: Callable[[], Mapping[str, Any]] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
