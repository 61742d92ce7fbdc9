"""Contents: what was found where a checkpoint lies, whatever holds it: a folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bandweave.checkpoints.byte_file import ByteFile, Readable
from bandweave.checkpoints.view import View
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import Names


class HeadedFile(Readable, Protocol):
    """An open weight file whose header has been checked."""

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    @property
    def file(self) -> ByteFile: ...
    @property
    def header_sha256(self) -> bytes: ...
    @property
    def key(self) -> str:
        """64 hexadecimal digits for this very file as it is now; empty where nothing tells."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Contents:
    """``config``: the fields of a config.json, and ``config_bytes`` what tells it from others.
    ``files`` and ``tensors`` by name, none where there is the config alone; ``names`` of stored
    tensors. ``metadata`` gives a GGUF file's, with arrays in full. ``remarks``: sentences on what
    files leave out and how that was taken."""

    spec: ModelSpec
    config: Mapping[str, Any]
    config_bytes: bytes
    files: Mapping[str, HeadedFile]
    tensors: Mapping[str, View]
    names: Names
    metadata: Callable[[], Mapping[str, Any]] | None = None
    remarks: tuple[str, ...] = ()
